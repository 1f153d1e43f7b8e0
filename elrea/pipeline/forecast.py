"""Estimates what a run needs before anything is downloaded or trained: parameters, tokens, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elrea.errors import BackboneError
from elrea.evaluation.draws import Draws, written
from elrea.method.ensemble.strategies.steered import Steered
from elrea.method.ensemble.strategy import STEERED
from elrea.method.features.gradient import GradientFeatures
from elrea.models.footprint import OPTIMISED, Footprint, config_of
from elrea.models.lora import parameters
from elrea.pipeline.passes import requirements

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.method.ensemble.requirements import Requirements
    from elrea.method.ensemble.strategy import AdapterSpec
    from elrea.method.features.protocol import Features
    from elrea.pipeline.experiment import Experiment

SAMPLE = 2_000
"""Maximum number of examples of a split that are tokenised; the totals are extrapolated from them."""
MB = 2**20


@dataclass(frozen=True)
class Sizes:
    """Amount of text in a run.

    Attributes:
        train: Number of training examples.
        test: Number of test prompts.
        train_tokens: Tokens of all training prompts and responses.
        prompt_tokens: Tokens of all training prompts.
        test_tokens: Tokens of all test prompts as they are scored: with the solved examples (shots) that fit.
        routed_tokens: Tokens of all test prompts as they are routed: without shots.
        texts: Number of texts that the strategies generate, all samples included.
        longest: Tokens of the longest training example that fits.
        response: Most tokens of one training example that carry loss.
        measured: True if tokens were counted, False if the figures are upper bounds.
        dropped: Number of training examples that are too long.
    """

    train: int
    test: int
    train_tokens: int
    prompt_tokens: int
    test_tokens: int
    routed_tokens: int
    texts: int
    longest: int
    response: int
    measured: bool
    dropped: int = 0

    @classmethod
    def upper_bounds(cls, experiment: Experiment, train: int, test: int) -> Sizes:
        """Upper bounds for data or a tokenizer that is not on this machine: every example has the maximum length."""
        room = experiment.backbone.max_length
        all_of_it = experiment.training.loss_on == "all"
        response = room if all_of_it else min(experiment.evaluation.max_new_tokens, room)
        tested, drawn = test * room, [Draws.of(s).samples for s in experiment.strategies.values()]
        texts = test * sum(drawn) * (experiment.evaluation.by == "generation")
        return cls(
            train, test, train * room, train * room, tested, tested, texts, room, response, False
        )

    @classmethod
    def measure(cls, experiment: Experiment) -> Sizes:
        """Counts tokens with the backbone's tokenizer.

        Raises:
            ElreaError: The prompt of an example cannot be built, or no training example fits.
        """
        from elrea.models.training.batches import items

        prompter = experiment.prompter
        train, test = experiment.corpus.train, experiment.corpus.test
        encoded, dropped = prompter.train(_sample(train))
        learned = items(encoded, experiment.training.loss_on)
        share = len(train) / (len(encoded) + len(dropped))
        tested = _sample(test)
        by, most = experiment.evaluation.by, experiment.evaluation.max_new_tokens
        scored, _ = prompter.test(tested, most if by == "generation" else None)
        texts = sum(
            len(written(test, by, strategy)) * Draws.of(strategy).samples
            for strategy in experiment.strategies.values()
        )
        scale = len(test) / len(tested)
        return cls(
            len(train), len(test),
            round(share * sum(e.length for e in encoded)),
            round(share * sum(len(e.prompt) for e in encoded)),
            round(scale * sum(len(e.prompt) for e in scored)),
            round(scale * sum(len(e.prompt) for e in prompter.routing(tested))),
            texts, max(e.length for e in encoded), max(item.counted for item in learned), True,
            round(share * len(dropped)),
        )  # fmt: skip


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
    sources = tuple(sorted({example.source for example in experiment.corpus.train}))
    needs, parts = requirements(experiment, sources, clusters)
    steered = {name: specs[STEERED] for name, specs in parts.items() if STEERED in specs}
    jobs = [*needs.adapters(clusters or 1).values()]
    jobs += [spec for specs in parts.values() for spec in specs.values()]
    footprint = _footprint(experiment)
    if footprint is None:
        rows.append(("backbone", "not on this machine, and backbone.shape is not set"))
    else:
        kept = f", {experiment.backbone.quantise}" if experiment.backbone.quantise else ""
        rows.append(
            ("backbone", f"{footprint.parameters:,} parameters, {_bytes(footprint.weights)}{kept}")
        )
        size = f"{footprint.adapter:,} parameters (r={experiment.lora.r})"
        unknown = f"{size} each; number not known yet"
        plain = [experiment.lora.r, *(job.lora.r for job in jobs if job.steering is None)]
        rows.append(("adapters", _sizes(plain, footprint.adapter) if clusters else unknown))
        rows.append(("adapted", footprint.adapted.replace(",", "")))  # fits 80 columns
        rows += [("not adapted", line.removeprefix("not adapted: ")) for line in footprint.left_out]
    rows += _tokens(experiment, needs, jobs, sizes, clusters)
    if footprint:
        try:
            rows += _memory(experiment, needs, sizes, footprint, clusters)
            rows += [
                row for n, spec in steered.items() for row in _steered(experiment, n, spec, sizes)
            ]
        except BackboneError:
            rows.append(("memory", "cannot be estimated for this architecture and length"))
    return rows


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
        (f"memory, {name}", f"{_bytes(used)}: {batch} x {sizes.longest:,} tokens at most"),
    ]


def _sample(examples: Sequence[Example]) -> list[Example]:
    """At most SAMPLE examples, evenly spaced."""
    step = -(-len(examples) // SAMPLE)
    return list(examples[::step])


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
    needs: Requirements,
    jobs: Sequence[AdapterSpec],
    sizes: Sizes,
    clusters: int | None,
) -> list[tuple[str, str]]:
    trained = experiment.training.epochs * sizes.train_tokens
    # Clusters have all the examples between them, and sources do.
    of_all = [job.epochs for job in jobs if job.cluster in (None, 0) and job.source is None]
    of_all += [job.epochs for job in jobs if job.source in needs.sources[:1]]
    trained += sum(of_all) * sizes.train_tokens
    first, later = experiment.training.epochs, experiment.training.expert_epochs
    taken = experiment.features.checkpoints(first)
    routed = taken * (sizes.prompt_tokens * needs.clustered + sizes.routed_tokens * needs.routed)
    for features, epochs in _own_groupings(experiment, needs):
        first_pass = features.from_base and epochs != first
        trained += epochs * sizes.train_tokens * first_pass
        if isinstance(features, GradientFeatures):
            passes = features.checkpoints(max(1, epochs))
            routed += passes * (sizes.prompt_tokens + sizes.routed_tokens)
    about = "about" if sizes.measured else "at most"
    after = f"each of {first}" if taken == first else f"{taken} of {first}"
    too_long = f" ({sizes.dropped:,} of them too long)" if sizes.dropped else ""
    rows = [
        ("examples", f"{sizes.train:,} to train{too_long}, {sizes.test:,} to test"),
        ("training", f"{about} {_count(trained)} tokens, {first} + {later} epochs"),
        ("gradients", f"{about} {_count(routed)} tokens of prompts, after {after} epochs"),
        ("scoring", f"{about} {_count(sizes.test_tokens)} tokens of prompts per member"),
    ]  # fmt: skip
    if sizes.texts:
        most = experiment.evaluation.max_new_tokens
        texts = f"{sizes.texts:,} texts of {most:,} tokens"
        rows.append(("writing", f"at most {_count(sizes.texts * most)} tokens: {texts}"))
    return rows


def _own_groupings(experiment: Experiment, needs: Requirements) -> list[tuple[Features, int]]:
    """Features, and the epochs of their base adapter, of clusters that steer and that no other strategy has."""
    run = experiment.features, experiment.training.epochs
    found: list[tuple[Features, int]] = []
    for strategy in experiment.strategies.values():
        if isinstance(strategy, Steered) and strategy.routed:
            own = strategy.grouped_by(*run)
            if own not in found and not (own == run and needs.clustered):
                found.append(own)
    return found


def _memory(
    experiment: Experiment,
    needs: Requirements,
    sizes: Sizes,
    footprint: Footprint,
    clusters: int | None,
) -> list[tuple[str, str]]:
    """Peak memory of each kind of work, with the size that determines it.

    Buffers of the libraries and of the operating system are not included.
    """
    batch, length = experiment.training.batch_size, sizes.longest
    wide = [spec for spec in needs.adapters(clusters or 4).values() if spec.steering is None]
    adapter = max(
        _optimised(footprint.adapter * rank // experiment.lora.r, held)
        for rank, held in [(experiment.lora.r, 0)]
        + [(spec.lora.r, (clusters or 4) * (spec.by_cluster == "project")) for spec in wide]
    )
    saved = footprint.saved(batch, length, batch * sizes.response, experiment.training.recompute)
    rows = [
        (
            "memory, training",
            f"{_bytes(footprint.weights + adapter + saved)}: {batch} x {length:,} tokens at most"
            + (", recomputed" if experiment.training.recompute else ""),
        )
    ]
    if needs.clustered and (peak := experiment.features.memory(footprint, length)):
        rows.append(("memory, gradients", f"{_bytes(peak[0])}: {peak[1]}"))
    if sizes.texts:
        members = (clusters or 4) + 1
        cached = footprint.cache * members * experiment.evaluation.batch_size * length
        used = footprint.weights + 4 * members * footprint.adapter + cached
        rows.append(
            (
                "memory, writing",
                f"{_bytes(used)}: {members} members x {experiment.evaluation.batch_size} texts",
            )
        )
    return rows


def _optimised(parameters: int, gradients: int) -> int:
    """Bytes of an adapter in training; `gradients` of clusters are held beside it twice, while they are projected."""
    return (OPTIMISED + 8 * gradients) * parameters


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / MB:.0f} MiB"


def _count(tokens: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g} {name}"
    return f"{tokens:.0f}"
