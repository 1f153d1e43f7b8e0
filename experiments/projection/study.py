"""Compares projections with full gradients: the error of cosines, the clusters, and the time.

    python experiments/projection/study.py
    python experiments/projection/study.py --data folder/of/jsonl --model path/to/model

A base adapter of rank 8 is trained on `--examples` examples. The full gradients of all of them are computed once, and
each projection is applied to these gradients, with several seeds. Writes results-NAME.json and NAME.png beside this
file and prints a table. Takes some minutes, and 4·n·|θ| bytes (0.5 GB for 1,000 examples and the built-in backbone).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

from elrea.data.batches import by_tokens
from elrea.data.exam.exam import Exam
from elrea.data.prompts import Encoded, Prompter
from elrea.data.sources.jsonl import Jsonl
from elrea.data.wording import Wording
from elrea.method.clustering.kmeans import FaissKMeans
from elrea.method.clustering.points import Points
from elrea.method.features.embedding import Embedding
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.projection import Full, Rademacher
from elrea.method.features.sjlt import Sjlt
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import TINY, Backbone, Pretrained
from elrea.models.device import Device
from elrea.models.lora import attach
from elrea.models.training.settings import Recipe, Training
from elrea.models.training.train import epoch_folders, train_adapter
from elrea.reporting.plots.canvas import COLOURS, GREY, WIDTH, legend, save
from elrea.store.files import write_json

HERE = Path(__file__).parent
LORA = Lora(r=8, dropout=0.0)
PAIRS = 1000
"""Examples whose cosines are compared, for every pair."""


def examples(
    given: argparse.Namespace, backbone: Backbone
) -> tuple[list[Encoded], list[Encoded], list[str]]:
    """Training examples, their prompts alone, and their sources."""
    source = (
        Exam() if given.data is None else Jsonl(train=given.data, limit_train=4 * given.examples)
    )
    train = list(source.load().train)
    order = np.random.default_rng(given.seed).permutation(len(train))
    # The built-in backbone was trained with BOS, which its tokenizer does not add.
    wording = Wording(add_bos=True if given.model == str(TINY) else None)
    prompter = Prompter(backbone.tokenizer, given.max_length, wording)
    fitting = [
        e for e in (train[i] for i in order) if prompter.encode(e).length <= given.max_length
    ]
    chosen = fitting[: given.examples]
    return (
        [prompter.encode(e) for e in chosen],
        prompter.routing(chosen),
        [e.source for e in chosen],
    )


def full_gradients(
    given: argparse.Namespace, backbone: Backbone, train: list[Encoded], prompts: list[Encoded]
) -> tuple[Tensor, Tensor, float]:
    """Mean over epochs of Adam's form [n, |θ|], embeddings [n, d], and seconds that the passes took.

    Projections are linear, so the projected mean equals a run's mean of projections.
    """
    model = attach(backbone.model, LORA, given.seed)
    training = Training(epochs=given.epochs, learning_rate=given.learning_rate, batch_size=16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = Recipe(training.epochs, training.learning_rate, training)
        train_adapter(
            model, train, recipe, pad_id=backbone.pad_id, lora=LORA, base_name=backbone.name,
            seed=given.seed, stage="base", folder=folder, keep_moments=True,
        )  # fmt: skip
        lengths = [len(prompt.prompt) for prompt in prompts]
        batches = by_tokens(lengths, 32, 8192)
        back = torch.tensor([i for batch in batches for i in batch]).argsort()
        words = [[prompts[i] for i in batch] for batch in batches]
        rows = []
        seconds = 0.0
        for features in (GradientFeatures(Full()), Embedding()):
            reader = features.reader(
                model, epoch_folders(folder), backbone.pad_id, backbone.tokenizer
            )
            start = time.perf_counter()
            found, fine = reader(words, lambda _n: None)
            seconds = seconds or time.perf_counter() - start
            assert bool(fine.all()), "an example has no gradient; choose another --seed"
            rows.append(found[back])
    return rows[0], rows[1], seconds


def errors(exact: Tensor, rows: Tensor) -> dict[str, float]:
    """Errors of all pairs' cosines (root mean square, largest), and their correlation with the exact cosines."""
    upper = torch.triu_indices(len(exact), len(exact), 1)
    a, b = (normalize(x, dim=1) for x in (exact, rows))
    a, b = ((x @ x.T)[upper[0], upper[1]] for x in (a, b))
    return {
        "rmse": float((a - b).square().mean().sqrt()),
        "largest": float((a - b).abs().max()),
        "correlation": float(torch.corrcoef(torch.stack([a, b]))[0, 1]),
    }


def clusters(rows: Tensor, k: int, seed: int) -> np.ndarray:
    """The cluster of each row [n], by k-means on unit vectors."""
    unit = normalize(rows.float(), dim=1).numpy().astype(np.float16)
    return FaissKMeans(k=k)(Points(unit, [""] * len(unit)), seed)


def study(
    full: Tensor, embedding: Tensor, sources: list[str], given: argparse.Namespace
) -> dict[str, Any]:
    """A row for each projection and dimension; each number is the mean over seeds."""
    from sklearn.metrics import adjusted_rand_score as ari
    from sklearn.metrics import normalized_mutual_info_score as nmi

    wanted = [clusters(full, given.k, seed) for seed in range(given.seeds)]
    exact = full[:PAIRS]

    def row(versions: list[Tensor], seconds: float) -> dict[str, float]:
        each = [errors(exact, rows[:PAIRS]) for rows in versions]
        found = [clusters(rows, given.k, seed) for seed, rows in enumerate(versions)]
        # Compared with k-means of the full gradients with every other seed, not with the same one.
        pairs = [
            (a, b)
            for i, a in enumerate(found)
            for j, b in enumerate(wanted)
            if i != j or len(found) == 1
        ]
        return {
            **{name: float(np.mean([error[name] for error in each])) for name in each[0]},
            "ari": float(np.mean([ari(a, b) for a, b in pairs])),
            "nmi_source": float(np.mean([nmi(sources, a) for a in found])),
            "seconds_per_1000": 1000 * seconds / len(full),
        }

    rows = {"full": row([full] * given.seeds, 0.0), "embedding": row([embedding], 0.0)}
    for d in given.d:
        kinds = {"rademacher": Rademacher, "sjlt, 1 nonzero": Sjlt, "sjlt, 4 nonzeros": Sjlt}
        for name, kind in kinds.items():
            more = {"nonzeros": int(name.split()[1])} if kind is Sjlt else {}
            versions, spent = [], []
            for seed in range(given.seeds):
                projection = kind(d=d, seed=seed, **more)
                start = time.perf_counter()
                versions.append(torch.cat([projection(part) for part in full.split(128)]))
                spent.append(time.perf_counter() - start)
            rows[f"{name}, d={d}"] = row(versions, float(np.median(spent)))
    return rows


def show(results: dict[str, Any], name: str) -> None:
    """Prints the table and draws the errors over dimensions."""
    columns = list(next(iter(results["rows"].values())))
    print(f"| {name} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for label, row in results["rows"].items():
        print(f"| {label} | {' | '.join(f'{row[column]:.3g}' for column in columns)} |")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        kinds = ("rademacher", "sjlt, 1 nonzero", "sjlt, 4 nonzeros")
        for kind, colour in zip(kinds, COLOURS, strict=False):
            rmse = [results["rows"][f"{kind}, d={d}"]["rmse"] for d in results["d"]]
            axes.loglog(results["d"], rmse, marker="o", color=colour, label=kind)
        line = [d**-0.5 for d in results["d"]]
        axes.loglog(results["d"], line, ":", color=GREY, label="1/√d")
        axes.set_xticks(results["d"], [str(d) for d in results["d"]])
        axes.minorticks_off()
        axes.set(xlabel="d", ylabel="error of cosines (root mean square)")
        legend(figure, kinds)

    save(draw, HERE / f"{name}.png", (WIDTH, 4.2), "Error of cosines against dimension", name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", help="files or folders of JSON lines (default: the built-in exam)"
    )
    parser.add_argument(
        "--model", default=str(TINY), help="a model folder (default: the built-in backbone)"
    )
    parser.add_argument("--name", help="name of the results (default: exam or text)")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--d", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the sample and the base adapter"
    )
    given = parser.parse_args()
    name = given.name or ("text" if given.data else "exam")
    backbone = Pretrained(name=given.model, max_length=given.max_length).load(
        Device(accelerator="cpu")
    )
    train, prompts, sources = examples(given, backbone)
    full, embedding, seconds = full_gradients(given, backbone, train, prompts)
    results = {
        "data": name,
        "model": Path(given.model).name,
        "examples": len(prompts),
        "tokens": float(np.mean([len(prompt.prompt) for prompt in prompts])),
        "parameters": full.shape[1],
        "gradient_seconds_per_1000": 1000 * seconds / len(prompts),
        "d": given.d,
        "k": given.k,
        "seeds": given.seeds,
        "rows": study(full, embedding, sources, given),
    }
    write_json(HERE / f"results-{name}.json", results)
    show(results, name)


if __name__ == "__main__":
    main()
