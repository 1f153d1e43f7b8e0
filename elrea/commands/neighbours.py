"""The training examples whose gradients lie nearest to a prompt's, by the index that is saved with the clusters.

python -m elrea.features.neighbours RUN "a prompt"
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from elrea.commands.messages import told
from elrea.errors import ConfigError
from elrea.store.files import is_text

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
    from elrea.data.examples import Example
    from elrea.method.clustering.assignment import read_clusters
    from elrea.method.clustering.index import search
    from elrea.models.training.train import epoch_folders
    from elrea.pipeline.assemble import of_run
    from elrea.pipeline.graph import clusters_of
    from elrea.store.stage import Store

    if k < 1:
        raise ConfigError(f"k={k}: must be at least 1")
    if not is_text(prompt):
        raise ConfigError("the prompt is not UTF-8 text")
    experiment, own = of_run(run)
    experiment.device.apply()
    context, stages = clusters_of(experiment, Store(store or own))
    for name, stage in stages.items():
        if not stage.done():
            raise ConfigError(
                f"{run}: its stage {name} is not in {stage.folder.parent}; run from the folder that the run was "
                "started in, or say --store"
            )
    epochs = epoch_folders(stages["base"].folder)
    query = context.features_of([Example("prompt", prompt, "", "prompt")], epochs)
    if not query.any():
        raise ConfigError("the prompt has no gradient to search by; give a longer one")
    clusters = stages["clusters"].folder
    examples, assignment = context.kept("train"), read_clusters(clusters)["assignment"].numpy()
    cosines, rows = search(clusters, query.numpy(), k)
    return [
        Neighbour(
            float(cosine), e.id, e.source, int(assignment[row]), " ".join(e.instruction.split())
        )
        for cosine, row in zip(cosines[0], rows[0], strict=True)
        for e in (examples[row],)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m elrea.features.neighbours", description=__doc__
    )
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
