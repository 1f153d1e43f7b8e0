"""The training examples whose gradients lie nearest to a prompt's: `python -m elrea.neighbours RUN "a prompt"`.

The search is exact, by FAISS over blocks of the run's memory-mapped features: a saved flat index would be a second copy
of them, twice as large, that a separate binary reader has to be trusted with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elrea.cli import told
from elrea.errors import ConfigError

BLOCK_BYTES = 64 << 20
"""Of float32 features that are searched at once."""
WORDS = 60
"""Characters of an example that are shown."""


@dataclass(frozen=True)
class Neighbour:
    """A training example near a prompt."""

    cosine: float
    id: str
    source: str
    cluster: int
    text: str


def nearest(
    features: np.ndarray, queries: np.ndarray, k: int, left_out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows with the highest cosines to each query, exactly.

    Args:
        features: Rows to search [n, d], float16 or float32, possibly memory-mapped and larger than memory.
        queries: [q, d].
        k: How many.
        left_out: Rows that do not count [m].

    Returns:
        Cosines [q, min(k, rows that count)], falling, and the rows' numbers.
    """
    import faiss

    queries = _unit(np.array(queries, dtype=np.float32))
    cosines, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    step = max(1, BLOCK_BYTES // (4 * features.shape[1]))
    out = np.zeros(len(features), dtype=bool)
    out[[] if left_out is None else left_out] = True
    for start in range(0, len(features), step):
        kept = start + np.flatnonzero(~out[start : start + step])
        if not len(kept):
            continue
        block = _unit(np.array(features[kept], dtype=np.float32))
        found, places = faiss.knn(
            queries, block, min(k, len(kept)), metric=faiss.METRIC_INNER_PRODUCT
        )
        cosines, rows = np.hstack([cosines, found]), np.hstack([rows, kept[places]])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        cosines, rows = np.take_along_axis(cosines, best, 1), np.take_along_axis(rows, best, 1)
    return cosines, rows


def neighbours(run: Path, prompt: str, k: int = 10, store: Path | None = None) -> list[Neighbour]:
    """The k training examples of a finished run that are nearest to a prompt, nearest first.

    Args:
        run: The run's folder.
        prompt: An instruction, as a training example words it.
        k: How many.
        store: Where the run's stages are, if not where its config says.

    Raises:
        ElreaError: The run is not finished, its data or store has moved, or the prompt has no gradient.
    """
    from elrea.assemble import of_run
    from elrea.data.examples import Example
    from elrea.features.featurefile import NAME, open_features
    from elrea.pipeline import Pipeline
    from elrea.store import Store

    if k < 1:
        raise ConfigError(f"k={k}: must be at least 1")
    experiment, own = of_run(run)
    experiment.device.apply()
    pipeline = Pipeline(experiment, Store(store or own), _silent)
    plan = pipeline.plan
    for name, stage in (
        ("base", plan.base),
        ("features", plan.train_features),
        ("clusters", plan.clusters),
    ):
        if not stage.done():
            raise ConfigError(
                f"{run}: its {name} are not in {stage.folder.parent}; run from the folder that the run was "
                "started in, or say --store"
            )
    query = pipeline.features_of([Example("prompt", prompt, "", "prompt")])
    if not query.any():
        raise ConfigError("the prompt has no gradient to search by; give a longer one")
    examples, assignment = pipeline.kept("train"), plan.read_clusters()["assignment"].numpy()
    features = open_features(plan.train_features.folder / NAME, len(examples), query.shape[1])
    cosines, rows = nearest(features, query.numpy(), k, np.flatnonzero(assignment < 0))
    return [
        Neighbour(
            float(cosine), e.id, e.source, int(assignment[row]), " ".join(e.instruction.split())
        )
        for cosine, row in zip(cosines[0], rows[0], strict=True)
        for e in (examples[row],)
    ]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


@contextmanager
def _silent(_description: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _n: None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m elrea.neighbours", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run's folder, as outputs/<day>/<time>")
    parser.add_argument("prompt", help="an instruction")
    parser.add_argument("-k", type=int, default=10, help="how many examples (10)")
    parser.add_argument("--store", type=Path, help="folder of the run's stages, if it has moved")
    given = parser.parse_args()
    found = neighbours(given.run, given.prompt, given.k, given.store)
    width = max(len(neighbour.source) for neighbour in found)
    print(f"{'cosine':>7}  cluster  {'source':{width}}  example")
    for one in found:
        text = one.text if len(one.text) <= WORDS else one.text[: WORDS - 3] + "..."
        print(f"{one.cosine:7.3f}  {one.cluster:7}  {one.source:{width}}  {text}  ({one.id})")


if __name__ == "__main__":
    with told():
        main()
