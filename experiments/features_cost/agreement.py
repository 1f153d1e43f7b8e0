"""Compares cheaper gradient features with the paper's: clusters, cosines of pairs, and CPU seconds.

    python experiments/features_cost/agreement.py --name exam +experiment=elrea_mmlu
    python experiments/features_cost/agreement.py --name text +experiment=elrea_mmlu data=mix data.root=<folder> ...

Overrides are run.py's. The base adapter and its checkpoints are made, or taken from the store. One pass per checkpoint
gives the gradients of all layers, of which every variant takes its part. Time is measured on some of the prompts, with
the readers that a run has, in CPU seconds of this process, and so is a training step of the base adapter. Writes
agreement-NAME.json beside this file and prints a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from torch.nn.functional import normalize

from elrea.commands.exit import one_line_errors
from elrea.data.batches import by_tokens
from elrea.data.prompts import Encoded
from elrea.method.clustering.kmeans import FaissKMeans
from elrea.method.clustering.points import Points
from elrea.method.features.adam import adam_direction
from elrea.method.features.gradient import GradientFeatures, GradientReader
from elrea.method.features.per_example import PerExampleGradients, decoder_layers
from elrea.models.log import OnlyProgress
from elrea.models.lora import load, set_state
from elrea.models.training.settings import Recipe
from elrea.models.training.train import epoch_folders, train_adapter
from elrea.pipeline.assemble import assemble
from elrea.pipeline.context import Context
from elrea.pipeline.graph import graph_of
from elrea.pipeline.hydra_base import hydra_base
from elrea.pipeline.timing import typical
from elrea.store.files import write_json
from elrea.store.stage import Store

HERE = Path(__file__).parent
CONF = HERE.parents[1] / "conf"
SEEDS = 5
"""Clusterings of each variant."""
STEPS = 2, 2, 8
"""Training steps of three runs: the first one warms up, and the time of a step is from the other two."""

Variant = tuple[str, int]
"""Which checkpoint (`all`, `first` or `last`), and how many of the last decoder layers."""


def experiment_of(words: Sequence[str]) -> Any:
    """The experiment that run.py would do, and the store."""
    with initialize_config_dir(str(CONF), **hydra_base()):
        config = compose("config", overrides=list(words), return_hydra_config=True)
        chosen = str(config.hydra.runtime.choices["ensemble"])
        plain = compose("config", overrides=list(words))
    return assemble(plain, chosen, CONF, list(words)), Store(Path(plain.store))


def numbers(total: int) -> list[int]:
    """How many of the last layers are tried, of `total`."""
    parts = {1, *(-(-total * share // 16) for share in (1, 2, 4, 8, 12)), total}
    return sorted(parts)


def gradients(
    reader: GradientReader, prompts: Sequence[Encoded], layers: Sequence[int]
) -> dict[tuple[int, int], Tensor]:
    """By checkpoint and number of last layers, the projected gradients [n, d]."""
    found: dict[tuple[int, int], Tensor] = {}
    slots = reader.gradients.slots
    columns = {}
    for k in layers:
        names = {slot.name for slot in PerExampleGradients(reader.model, k).slots}
        parts = [torch.arange(s.start, s.start + s.size) for s in slots if s.name in names]
        columns[k] = torch.cat(parts)
    batches = by_tokens([len(p.prompt) for p in prompts], 32, 2048)
    back = torch.tensor([i for batch in batches for i in batch]).argsort()
    for number, (checkpoint, _) in enumerate(reader.checkpoints):
        set_state(reader.model, load(checkpoint)[0])
        state = reader._state(checkpoint)
        rows: dict[int, list[Tensor]] = {k: [] for k in layers}
        for batch in batches:
            got = torch.empty(len(batch), reader.gradients.size)
            reader._gradients([prompts[i] for i in batch], got)
            adam_direction(got, state, reader.features.momentum)
            for k in layers:
                rows[k].append(reader.features.projection(got[:, columns[k]]))
        found |= {(number, k): torch.cat(rows[k])[back] for k in layers}
    return found


def variants(found: dict[tuple[int, int], Tensor]) -> dict[Variant, Tensor]:
    """Features [n, d] of length 1 by variant."""
    epochs = 1 + max(epoch for epoch, _ in found)
    made: dict[Variant, Tensor] = {}
    for k in sorted({k for _, k in found}, reverse=True):
        rows = [found[epoch, k] for epoch in range(epochs)]
        made["all", k] = torch.stack(rows).mean(0)
        made["first", k], made["last", k] = rows[0], rows[-1]
    return {variant: normalize(rows, dim=1) for variant, rows in made.items()}


def clusters(rows: Tensor, k: int, seed: int, **given: Any) -> np.ndarray:
    """The cluster of each row [n]."""
    unit = rows.numpy().astype(np.float16)
    return FaissKMeans(k=k, min_size=8, **given)(Points(unit, [""] * len(unit)), seed)


def agreement(
    made: dict[Variant, Tensor], sources: Sequence[str], k: int
) -> dict[str, dict[str, Any]]:
    """By variant: NMI with the paper's clusters (other seeds of k-means), between its own seeds, and with the sources;
    correlation of all pairs' cosines with the paper's."""
    from sklearn.metrics import normalized_mutual_info_score as nmi

    paper = next(iter(made))
    upper = torch.triu_indices(len(made[paper]), len(made[paper]), 1)
    exact = (made[paper] @ made[paper].T)[upper[0], upper[1]]
    groups = {v: [clusters(rows, k, seed) for seed in range(SEEDS)] for v, rows in made.items()}
    pairs = [(i, j) for i in range(SEEDS) for j in range(SEEDS) if i != j]
    found = {}
    for variant, rows in made.items():
        own = groups[variant]
        cosines = (rows @ rows.T)[upper[0], upper[1]]
        found[f"{variant[0]}, {variant[1]}"] = {
            "nmi_paper": float(np.mean([nmi(own[i], groups[paper][j]) for i, j in pairs])),
            "nmi_seeds": float(np.mean([nmi(own[i], own[j]) for i, j in pairs])),
            "nmi_source": float(np.mean([nmi(sources, each) for each in own])),
            "correlation": float(torch.corrcoef(torch.stack([exact, cosines]))[0, 1]),
        }
    return found


def seconds_of_features(
    model: Any,
    features: GradientFeatures,
    checkpoints: Sequence[Path],
    pad_id: int,
    prompts: Sequence[Encoded],
    layers: Sequence[int],
) -> dict[str, float]:
    """CPU seconds per prompt at one checkpoint by number of last layers. They take turns; the least of two counts."""
    batches = by_tokens(
        [len(p.prompt) for p in prompts], features.batch_size, features.batch_tokens
    )
    given = [[prompts[i] for i in batch] for batch in batches]
    once = replace(features, epoch_weights=[1.0] + [0.0] * (len(checkpoints) - 1))
    found: dict[int, list[float]] = {k: [] for k in layers}
    for turn in range(3):
        for k in layers:
            reader = replace(once, layers=k).reader(model, checkpoints, pad_id)
            began = time.process_time()
            reader(given, lambda _n: None)
            if turn:  # the first one warms up
                found[k].append((time.process_time() - began) / len(prompts))
    return {str(k): min(each) for k, each in found.items()}


def seconds_of_training(context: Context, model: Any) -> tuple[float, float]:
    """CPU seconds per token of a training step, and tokens per example."""
    experiment = context.experiment
    encoded = context.encoded_train[0]
    batch = typical(encoded, lambda e: e.length, experiment.training.batch_size)
    spent = []
    for steps in STEPS:
        settings = replace(experiment.training, early_stop=None, max_steps=None, accumulate=1)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as name:
            train_adapter(
                model, batch * steps, Recipe(1, settings.learning_rate, settings),
                pad_id=context.backbone.pad_id, lora=experiment.lora, base_name=context.backbone.name,
                seed=0, stage="timing", folder=Path(name), keep_moments=True,
                trainer=experiment.device.lightning(), task=OnlyProgress(lambda _n: None),
            )  # fmt: skip
        spent.append(time.process_time() - began)
    tokens = sum(e.length for e in batch)
    per_token = (spent[2] - spent[1]) / (STEPS[2] - STEPS[1]) / tokens
    return per_token, sum(e.length for e in encoded) / len(encoded)


def show(result: dict[str, Any]) -> None:
    """Prints the table: the cost of tuning is that of base adapter, features and experts over the base adapter's."""
    print("| checkpoint, layers | NMI paper | NMI own seeds | NMI sources | pairs' r | tuning |")
    print("|---|---|---|---|---|---|")
    for name, row in result["variants"].items():
        cells = [
            f"{row[key]:.2f}" for key in ("nmi_paper", "nmi_seeds", "nmi_source", "correlation")
        ]
        print(f"| {name} | {' | '.join(cells)} | {row['tuning']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="of the result, agreement-NAME.json")
    parser.add_argument("--timed", type=int, default=32, help="prompts that are timed (32)")
    parser.add_argument("words", nargs="+", help="overrides, as for run.py")
    given = parser.parse_args()
    experiment, store = experiment_of([*given.words, "tracking.mode=disabled"])
    node = graph_of(experiment, store).nodes["features-train"]
    context, base = node.context, graph_of(experiment, store).nodes["base"]
    base.stage.run(partial(base.step.make, base.context, base.upstream))
    kept, epochs = context.kept("train"), epoch_folders(base.stage.folder)
    prompts, pad_id = context.prompter.routing(kept), context.backbone.pad_id
    features = GradientFeatures(projection=experiment.features.projection)
    with context.peft(experiment.lora) as model:
        layers = numbers(decoder_layers(model))
        reader = features.reader(model, epochs, pad_id)
        made = variants(gradients(reader, prompts, layers))
        some = typical(prompts, lambda p: len(p.prompt), given.timed)
        seconds = seconds_of_features(model, features, epochs, pad_id, some, layers)
        per_token, length = seconds_of_training(context, model)
    k = experiment.clustering.known_k() or 4
    rows = agreement(made, [e.source for e in kept], k)
    for (checkpoint, last), row in zip(made, rows.values(), strict=True):
        passes = len(epochs) if checkpoint == "all" else 1
        row["features_over_base"] = passes * seconds[str(last)] / (len(epochs) * per_token * length)
        row["tuning"] = 2 + row["features_over_base"]
    result = {
        "words": given.words, "examples": len(kept), "clusters": k, "epochs": len(epochs),
        "seconds_per_prompt": seconds, "seconds_per_trained_token": per_token,
        "tokens_per_example": length,
        "tokens_per_prompt": sum(len(p.prompt) for p in prompts) / len(prompts),
        "variants": rows,
    }  # fmt: skip
    write_json(HERE / f"agreement-{given.name}.json", result)
    show(result)


if __name__ == "__main__":
    with one_line_errors():
        main()
