"""Estimates what a run needs before anything is downloaded or trained: parameters, tokens, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from elrea.errors import BackboneError
from elrea.method.ensemble.strategy import STEERED
from elrea.method.features.gradient import GradientFeatures
from elrea.models.footprint import OPTIMISED, Footprint, config_of
from elrea.models.lora import parameters
from elrea.models.training.settings import Recipe
from elrea.pipeline.graph import Builder
from elrea.pipeline.memory import in_bytes, memory
from elrea.pipeline.passes import requirements, stands_for_all
from elrea.pipeline.steps.features import FeaturesForDev, FeaturesForTest, FeaturesStep

if TYPE_CHECKING:
    from elrea.data.corpus import Split
    from elrea.method.ensemble.strategy import AdapterSpec
    from elrea.pipeline.context import Context
    from elrea.pipeline.experiment import Experiment
    from elrea.pipeline.sizes import Sizes


def forecast(experiment: Experiment, sizes: Sizes, clusters: int | None) -> list[tuple[str, str]]:
    """Rows of the forecast table: a name and its figure.

    Args:
        experiment: The run; of its corpus, only the sources of the training examples are read.
        sizes: Amount of text.
        clusters: Number of clusters C; None if it is not known yet.

    Raises:
        ElreaError: transformers does not know the architecture.
    """
    rows = []
    sources = experiment.corpus.train_sources
    needs, parts = requirements(experiment, sources, clusters)
    contexts = Builder(experiment).contexts
    bases = {context.base_epochs for context in contexts}
    steered = {name: specs[STEERED] for name, specs in parts.items() if STEERED in specs}
    groups = [[*needs.adapters(clusters or 1).values()], *([*p.values()] for p in parts.values())]
    jobs = [spec for group in groups for spec in group]
    trainings = [(epochs, 1) for epochs in bases]
    trainings += [found for group in groups for found in _trainings(group, sources)]
    trainings += [(spec.epochs, 1) for spec, _ in needs.gates(clusters or 1).values()]
    footprint = _footprint(experiment)
    if footprint is None:
        rows.append(("backbone", "not on this machine, and backbone.shape is not set"))
    else:
        kept = f", {experiment.backbone.quantise}" if experiment.backbone.quantise else ""
        rows.append(
            (
                "backbone",
                f"{footprint.parameters:,} parameters, {in_bytes(footprint.weights)}{kept}",
            )
        )
        size = f"{footprint.adapter:,} parameters (r={experiment.lora.r})"
        unknown = f"{size} each; number not known yet"
        plain = [experiment.lora.r] * len(bases)
        plain += [job.lora.r for job in jobs if job.steering is None]
        rows.append(("adapters", _sizes(plain, footprint.adapter) if clusters else unknown))
        rows.append(("adapted", footprint.adapted.replace(",", "")))  # fits 80 columns
        rows += [("not adapted", line.removeprefix("not adapted: ")) for line in footprint.left_out]
    rows += _tokens(experiment, contexts, trainings, sizes, clusters)
    if footprint:
        try:
            rows += memory(contexts, needs, sizes, footprint, clusters)
            rows += [
                row for n, spec in steered.items() for row in _steered(experiment, n, spec, sizes)
            ]
        except BackboneError:
            rows.append(("memory", "cannot be estimated for this architecture and length"))
    return rows


def _trainings(specs: Sequence[AdapterSpec], sources: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Epochs and number of adapters of trainings on all examples: clusters have them all between them, and so have
    sources."""
    kinds = [(spec.examples, spec.epochs, spec.learning_rate, spec.lora) for spec in specs]
    counts = Counter(kinds)
    for spec, kind in zip(specs, kinds, strict=True):
        if stands_for_all(spec, sources):
            yield spec.epochs, 1 if spec.examples == "all" else counts[kind]


def _sizes(ranks: Sequence[int], of_first: int) -> str:
    """Number and parameters of adapters by their ranks, of which the first has `of_first` parameters."""
    counts = Counter(ranks)
    each = [f"{r * of_first // ranks[0]:,} parameters (r={r})" for r in sorted(counts)]
    if len(counts) == 1:
        return f"{len(ranks)}, of {each[0]} each"
    parts = (f"{counts[r]} of {text}" for r, text in zip(sorted(counts), each, strict=True))
    return ", ".join(parts)


def _steered(
    experiment: Experiment, name: str, spec: AdapterSpec, sizes: Sizes
) -> list[tuple[str, str]]:
    """Size of an adapter that clusters steer, and peak memory of its training.

    Raises:
        BackboneError: The memory cannot be estimated.
    """
    footprint, steering = _footprint(replace(experiment, lora=spec.lora)), spec.steering
    assert footprint is not None and steering is not None
    batch, settings = experiment.training.batch_size, experiment.training
    layers = len(parameters(footprint.model)) // 2
    each = steering.trunk ** (2 if steering.form == "full" else 1)
    factors = layers * steering.clusters * each
    saved = footprint.saved(batch, sizes.longest, batch * sizes.response, settings.recompute)
    used = footprint.weights + OPTIMISED * (footprint.adapter + factors) + saved
    shape = f"r={spec.lora.r}, {factors:,} of them factors of {steering.clusters} clusters"
    return [
        (name, f"{footprint.adapter + factors:,} parameters ({shape})"),
        (f"memory, {name}", f"{in_bytes(used)}: {batch} x {sizes.longest:,} tokens at most"),
    ]


def _footprint(experiment: Experiment) -> Footprint | None:
    backbone = experiment.backbone
    if not (backbone.here or backbone.shape):
        return None
    config = backbone.config() if backbone.here else config_of(backbone.shape)
    device = "cuda" if _on_gpu(experiment) else "cpu"
    return Footprint.of(config, experiment.lora, _dtype(experiment), backbone.quantise, device)


def _dtype(experiment: Experiment) -> str:
    """Data type of the weights that are not quantised. The machine that plans may lack the GPU that will train."""
    wanted = experiment.backbone.dtype
    if wanted != "auto":
        return wanted
    return "bfloat16" if _on_gpu(experiment) else "float32"


def _on_gpu(experiment: Experiment) -> bool:
    device = experiment.device
    return bool(
        experiment.backbone.quantise
        or device.accelerator == "gpu"
        or (device.accelerator == "auto" and device.resolve() == "cuda")
    )


def _tokens(
    experiment: Experiment,
    contexts: Sequence[Context],
    trainings: Sequence[tuple[int, int]],
    sizes: Sizes,
    clusters: int | None,
) -> list[tuple[str, str]]:
    """Rows of the tokens; `trainings`: epochs and number of adapters of trainings on all examples between them."""
    training, about = experiment.training, "about" if sizes.measured else "at most"
    trained = 0.0
    for epochs, adapters in trainings:
        recipe = Recipe(epochs, training.learning_rate, training)
        trained += epochs * sizes.train_tokens * recipe.share(-(-sizes.fitting // adapters))
    too_long = f" ({sizes.dropped:,} of them too long)" if sizes.dropped else ""
    planned = f"{training.epochs} + {training.expert_epochs} epochs"
    if training.max_steps is not None:
        planned += f", at most {training.max_steps:,} step{'s' * (training.max_steps != 1)} each"
    rows = [
        ("examples", f"{sizes.train:,} to train{too_long}, {sizes.test:,} to test"),
        ("training", f"{about} {_count(trained)} tokens, {planned}"),
        *_features(contexts, sizes, clusters),
        ("scoring", f"{about} {_count(sizes.test_tokens)} tokens of prompts per member"),
    ]
    if sizes.texts:
        most = experiment.evaluation.max_new_tokens
        texts = f"{sizes.texts:,} texts of {most:,} tokens"
        rows.append(("writing", f"at most {_count(sizes.texts * most)} tokens: {texts}"))
    return rows


def _features(
    contexts: Sequence[Context], sizes: Sizes, clusters: int | None
) -> Iterator[tuple[str, str]]:
    """Rows of the prompts that pass through the backbone for features: with a backward pass, and without one."""
    about = "about" if sizes.measured else "at most"
    gradients, forward, whens = 0.0, 0.0, list[str]()
    for context, splits in _splits(contexts, clusters):
        features, epochs = context.experiment.features, context.base_epochs
        dev = len(context.experiment.corpus.dev) / max(1, sizes.test) * sizes.routed_tokens
        of = {"train": sizes.prompt_tokens, "dev": dev, "test": sizes.routed_tokens}
        taken = rounds(context, sizes)
        tokens = taken * sum(of[split] for split in splits)
        if isinstance(features, GradientFeatures):
            gradients += tokens
            each = f"after each of {epochs} epochs" if epochs > 1 else f"after {epochs} epoch"
            fewer = f"after {taken} of {epochs} epochs"
            whens.append("at the start" if not epochs else each if taken == epochs else fewer)
        elif features.passes(max(1, epochs)):
            forward += tokens
    if gradients:
        when = " and ".join(dict.fromkeys(whens))
        yield "gradients", f"{about} {_count(gradients)} tokens of prompts, {when}"
    if forward:
        yield "features", f"{about} {_count(forward)} tokens of prompts, forward passes alone"


def _splits(contexts: Sequence[Context], clusters: int | None) -> list[tuple[Context, set[Split]]]:
    """The splits whose prompts get features; once for contexts with the same features of the same base adapter."""
    found: list[tuple[Context, set[Split]]] = []
    for context in contexts:
        steps = [
            step
            for kind in (FeaturesStep, FeaturesForDev, FeaturesForTest)
            for step in kind.of(context, clusters)
        ]
        splits = {step.split for step in steps if isinstance(step, FeaturesStep)}
        if context.learned_router and context.learned_router.learns == "cosines":
            splits.add("dev")  # they judge the router
        own = context.experiment.features, context.base_epochs
        for other, theirs in found:
            if (other.experiment.features, other.base_epochs) == own:
                theirs |= splits
                break
        else:
            found.append((context, splits))
    return [(context, splits) for context, splits in found if splits]


def rounds(context: Context, sizes: Sizes) -> int:
    """Passes of the features over every prompt: one per checkpoint of the base adapter that has a weight.

    Args:
        context: Of the run or of a part.
        sizes: Amount of text in the run.
    """
    training, epochs = context.experiment.training, max(1, context.base_epochs)
    made = Recipe(epochs, training.learning_rate, training).epochs_begun(sizes.fitting)
    return context.experiment.features.checkpoints(max(1, made))


def _count(tokens: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g} {name}"
    return f"{tokens:.0f}"
