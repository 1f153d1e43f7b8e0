"""Measures one step of each kind of work on this machine, from which plan=true forecasts the time of every stage.

The steps use the run's own backbone, data and settings. They are made once per combination of those: the rates are a
stage of the store.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from elrea.evaluation.draws import Draws, indices_to_generate
from elrea.method.clustering.assignment import make_clusters
from elrea.method.ensemble.strategy import BACKBONE, DevGated, TrainedGates
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.to_disk import NAME, SKIPPED, create, open_features, stream, write_rows
from elrea.method.routing.weights import Routing
from elrea.models.log import OnlyProgress
from elrea.models.lora import load
from elrea.models.training.settings import Recipe
from elrea.models.training.train import epoch_folders, train_adapter
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.forecast import rounds
from elrea.pipeline.memory import ASSUMED_CLUSTERS
from elrea.pipeline.steps.adapters import Adapter
from elrea.pipeline.steps.answers import Answers
from elrea.pipeline.steps.clusters import Clusters
from elrea.pipeline.steps.features import FeaturesStep
from elrea.pipeline.steps.paired import DevComparison
from elrea.pipeline.steps.scores import Scores
from elrea.store.files import read_json, write_json

if TYPE_CHECKING:
    from elrea.data.prompts import Ids
    from elrea.pipeline.context import Context
    from elrea.pipeline.graph import Node
    from elrea.pipeline.sizes import Sizes
    from elrea.store.stage import Stage, Store

RATES = "rates.json"
ENOUGH = 2.0
"""Seconds of work after which a rate is taken to be measured."""
MOST = 20
"""Steps in a measurement at most."""
ROWS = 800
"""Rows that are clustered in the measurement at most."""
TOKENS = 16
"""Tokens of each text that are generated in the measurement at most."""
FORWARD = 1 / 3
"""Share of a training step's time that its forward pass takes, about; it decides how much is measured."""

T = TypeVar("T")


def rates_stage(
    context: Context, store: Store, clusters: int | None, *, clustered: bool = False
) -> Stage:
    """The stage of the store that has the rates of a run: `run` it with `measure`.

    Args:
        context: Of the run.
        store: Where it is kept.
        clusters: C.
        clustered: Whether a part of the run clusters by the run's features.
    """
    experiment = context.experiment
    training = experiment.training
    return store.stage(
        "timing",
        2,
        {
            **({"clustered": True} if clustered and not context.requirements.clustered else {}),
            "prompts": context.prompts,
            "train": experiment.corpus.fingerprint("train"),
            "test": experiment.test,
            "lora": key_fields(experiment.lora),
            "batch": [training.batch_size, training.accumulate, training.recompute, training.loss_on],
            "features": key_fields(experiment.features),
            "clustering": key_fields(experiment.clustering),
            "strategies": {n: key_fields(s) for n, s in experiment.strategies.items()},
            "scoring": [experiment.evaluation.by, experiment.evaluation.batch_size, clusters],
            "device": asdict(experiment.device),
            "machine": [platform.machine(), platform.processor(), os.cpu_count(), torch.get_num_threads()],
        },
    )  # fmt: skip


def measure(
    context: Context, clusters: int | None, folder: Path, *, clustered: bool = False
) -> None:
    """Writes `rates.json`: seconds per token of training (forward, backward and update), per token and checkpoint of
    features, per clustered example, per token and member of scoring, and per step of generating a batch of texts. Kinds
    of work that the run does not have are left out.

    Args:
        context: Of the run; its backbone is loaded.
        clusters: Number of clusters C; None takes `ASSUMED_CLUSTERS`.
        folder: Where to write.
        clustered: Whether a part of the run clusters by the run's features.

    Raises:
        ElreaError: A step cannot be made; the run would fail in the same way.
    """
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        rates["train"] = _training(context, place / "base")
        if clustered or context.requirements.clustered:
            rates["features"] = _features(context, place, rates["train"])
            rates["clusters"] = _clusters(context, place)
        rates |= _answers(
            context, place / "base" / "adapter", clusters or ASSUMED_CLUSTERS, rates["train"]
        )
    write_json(folder / RATES, rates)


def read_rates(stage: Stage) -> Mapping[str, float]:
    """What `measure` wrote."""
    rates: Mapping[str, float] = read_json(stage.folder / RATES)
    return rates


def seconds(
    node: Node, rates: Mapping[str, float], sizes: Sizes, clusters: int | None
) -> float | None:
    """Expected seconds of one stage; None for a kind of work that is not measured.

    Args:
        node: The stage.
        rates: From `measure`.
        sizes: Amount of text in the run.
        clusters: C; None takes `ASSUMED_CLUSTERS`.
    """
    step, experiment = node.step, node.context.experiment
    if isinstance(step, Adapter):
        share = (clusters or ASSUMED_CLUSTERS) if step.spec.examples in ("cluster", "random") else 1
        if step.spec.examples == "source":
            share = len(node.context.requirements.sources)
        recipe = Recipe(step.spec.epochs, step.spec.learning_rate, experiment.training)
        tokens = step.spec.epochs * sizes.train_tokens / share
        return rates["train"] * tokens * recipe.share(-(-sizes.fitting // share))
    if isinstance(step, FeaturesStep) and "features" in rates and as_measured(node.context):
        dev = len(experiment.corpus.dev) / max(1, sizes.test) * sizes.routed_tokens
        tokens = {"train": sizes.prompt_tokens, "dev": dev, "test": sizes.routed_tokens}[step.split]
        return rates["features"] * rounds(node.context, sizes) * tokens
    if isinstance(step, Clusters) and "clusters" in rates and as_measured(node.context):
        return rates["clusters"] * sizes.train
    if isinstance(step, Scores) and experiment.evaluation.by == "generation":
        return 0.0  # texts are judged: next to nothing
    if isinstance(step, Scores) and "score" in rates:
        count = len(step.members) + 1 + (BACKBONE in experiment.strategies)
        return rates["score"] * count * sizes.test_tokens
    if isinstance(step, DevComparison) and "score" in rates:
        dev = sizes.test_tokens / max(1, sizes.test) * len(experiment.corpus.dev)
        return 2 * rates["score"] * dev
    if isinstance(step, Answers) and "write" in rates:
        strategy = experiment.strategies[step.strategy]
        count = len(indices_to_generate(experiment.corpus.test, experiment.evaluation.by, strategy))
        batches = -(-count * Draws.of(strategy).samples // experiment.evaluation.batch_size)
        return rates["write"] * batches * experiment.evaluation.max_new_tokens
    return None


def as_measured(context: Context) -> bool:
    """Whether a part's features are the run's, at other checkpoints perhaps; the run's own are."""
    own, measured = (
        replace(each, epoch_weights=None) if isinstance(each, GradientFeatures) else each
        for each in (c.experiment.features for c in (context, context.within or context))
    )
    return own == measured


class Clock:
    """Times the reports of a piece of work."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.reports: list[tuple[float, int]] = []

    def advance(self, count: int) -> None:
        """`count` units are done now."""
        self.reports.append((time.perf_counter(), count))

    def per_unit(self) -> float:
        """Seconds per unit: between the first report and the last, since the first one includes the set-up; if there
        is one report only, from the start."""
        if len(self.reports) > 1:
            began, reports = self.reports[0][0], self.reports[1:]
        else:
            began, reports = self.start, self.reports
        return (reports[-1][0] - began) / max(1, sum(count for _, count in reports))


def typical(items: Sequence[T], length: Callable[[T], int], count: int) -> list[T]:
    """`count` items at evenly spaced quantiles of length, so that their mean length is that of all."""
    ordered = sorted(items, key=length)
    count = min(count, len(ordered))
    return [ordered[int((k + 0.5) * len(ordered) / count)] for k in range(count)]


def _training(context: Context, folder: Path) -> float:
    """Seconds per token; leaves the adapter and its moments in `folder`."""
    experiment = context.experiment
    settings = replace(experiment.training, early_stop=None, max_steps=None, accumulate=1)
    batch = typical(context.encoded_train[0], lambda e: e.length, settings.batch_size)
    epochs, first = 1, True
    while True:  # the first training warms up: libraries are imported in it
        clock = Clock()
        with context.peft(experiment.lora) as model:
            train_adapter(
                model, batch, Recipe(epochs, settings.learning_rate, settings), pad_id=context.backbone.pad_id,
                lora=experiment.lora, base_name=context.backbone.name, seed=experiment.seed, stage="timing",
                folder=folder if first else folder.with_name(f"again-{epochs}"), keep_moments=first,
                trainer=experiment.device.lightning(), task=OnlyProgress(clock.advance),
            )  # fmt: skip
        took = time.perf_counter() - clock.start
        if not first and (took > ENOUGH or epochs == MOST):
            return clock.per_unit() * len(batch) / sum(e.length for e in batch)
        # More steps until they take long enough; a slow model's first step tells that one more will do.
        epochs = (1 if took > 5 * ENOUGH else 2) if first else MOST
        first = False


def _affordable(seconds: float, most: int, least: int = 4) -> int:
    """How many units of so many seconds each are measured."""
    return max(1, min(most, max(least, int(ENOUGH / max(seconds, 1e-9)))))


def _features(context: Context, place: Path, per_token: float) -> float:
    """Seconds per token of one checkpoint; leaves the features in `place`. `per_token`: of training."""
    experiment = context.experiment
    features = experiment.features
    encoded = context.prompter.routing(context.kept("train"))
    mean = sum(len(e.prompt) for e in encoded) / len(encoded)
    count = _affordable(per_token * mean, features.batch_size)
    prompts = typical(encoded, lambda e: len(e.prompt), count)
    twice = 1 + (per_token * mean * count < ENOUGH)  # the first round warms up, where that matters
    checkpoints = epoch_folders(place / "base") * twice if features.from_base else []
    if isinstance(features, GradientFeatures):  # every one of them is measured
        features = replace(features, epoch_weights=[1.0] * len(checkpoints))
    clock = Clock()
    (place / "features").mkdir()
    with context.peft(experiment.lora) as model:
        backbone = context.backbone
        reader = features.reader(model, checkpoints, backbone.pad_id, backbone.tokenizer)
        stream(place / "features", prompts, features, reader, advance=clock.advance)
    return clock.per_unit() * len(prompts) / sum(len(e.prompt) for e in prompts)


def _clusters(context: Context, place: Path) -> float:
    """Seconds per example: of clustering the measured features, repeated with noise."""
    experiment = context.experiment
    examples = context.kept("train")[:ROWS]
    measured = open_features(place / "features" / NAME).astype(np.float32)
    rows = np.resize(measured, (len(examples), measured.shape[1]))
    noise = np.random.default_rng(0).standard_normal(rows.shape, dtype=np.float32)
    rows += noise * 0.5 * np.linalg.norm(rows) / np.linalg.norm(noise)
    folder, out = place / "rows", place / "clusters"
    folder.mkdir()
    out.mkdir()
    create(folder / NAME, *rows.shape, "F32")
    write_rows(folder / NAME, np.arange(len(rows)), rows)
    write_json(folder / SKIPPED, {})
    began = time.perf_counter()
    make_clusters(out, folder, examples, experiment.clustering, experiment.seed, unit=False)
    return (time.perf_counter() - began) / len(examples)


def _answers(context: Context, adapter: Path, clusters: int, per_token: float) -> dict[str, float]:
    """Seconds per prompt token and member of scoring, and per step of generating a batch of texts.

    Args:
        context: Of the run.
        adapter: A trained adapter's folder, which stands for every member.
        clusters: C.
        per_token: Seconds per token of training.
    """
    from elrea.evaluation.scoring import mixtures, questions_of, score

    experiment, settings = context.experiment, context.experiment.evaluation
    encoded, _ = context.prompter.test(experiment.corpus.test)
    mean = sum(len(e.prompt) for e in encoded) / len(encoded)
    forward = FORWARD * per_token * (clusters + 2)
    count = _affordable(forward * mean, 2 * settings.batch_size)
    chosen = typical(range(len(encoded)), lambda i: len(encoded[i].prompt), count)
    encoded, test = [encoded[i] for i in chosen], [experiment.corpus.test[i] for i in chosen]
    routing = Routing(
        torch.rand(len(test), clusters, generator=torch.Generator().manual_seed(0)), experiment.router,
        [e.source for e in test], context.requirements.sources,
    )  # fmt: skip
    strategies = {
        n: s.serving(range(clusters)) if isinstance(s, DevGated) and s.undecided else s
        for n, s in experiment.strategies.items()
        if not isinstance(s, TrainedGates)
    }
    tensors = load(adapter)
    joint, mixed = mixtures(
        strategies,
        routing,
        context.backbone.model,
        lambda name: None if name == BACKBONE else tensors,
    )
    rates: dict[str, float] = {}
    if settings.by != "generation" or context.requirements.decided:  # gates go by likelihood
        choices = [context.prompter.choices(e) for e in test]
        questions = questions_of(encoded, choices, [e.answer for e in test])
        clock = Clock()
        score(
            joint, questions, mixed, batch_size=settings.batch_size, pad_id=context.backbone.pad_id,
            advance=lambda count: clock.advance(count) if count else None,
        )  # fmt: skip
        tokens = sum(len(e.prompt) for e in encoded)
        rates["score"] = clock.per_unit() * len(encoded) / max(1, tokens) / joint.count
    if any(step for step in Answers.of(context, clusters)):
        size = settings.batch_size
        prompts = [e.prompt for e in (encoded * size)[:size] if e.prompt]
        rates["write"] = _writing(context, prompts, joint, _affordable(forward * size, TOKENS, 2))
    return rates


def _writing(context: Context, prompts: Sequence[Ids], joint: Any, steps: int) -> float:
    """Seconds per token that all texts of a batch gain together."""
    from elrea.method.ensemble.decoding import generate
    from elrea.method.ensemble.decoding_settings import Decoding

    weights = torch.ones(len(prompts), joint.count)
    began = time.perf_counter()
    texts = generate(
        joint,
        prompts,
        weights,
        Decoding(steps),
        context.backbone.tokenizer,
        pad_id=context.backbone.pad_id,
    )
    return (time.perf_counter() - began) / max(1, *(len(text) for text in texts))
