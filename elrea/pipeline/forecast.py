"""What a run will take, said before anything is fetched or trained: parameters, tokens, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elrea.data.prompts import Prompter
from elrea.errors import BackboneError
from elrea.evaluation.draws import Draws, written
from elrea.method.ensemble.requirements import Requirements
from elrea.models.footprint import OPTIMISED, Footprint, config_of

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.pipeline.experiment import Experiment

LOOK = 2_000
"""Examples of a split that are made tokens; the others are taken to be like them."""
MB = 2**20


@dataclass(frozen=True)
class Sizes:
    """How much text there is.

    Attributes:
        train: Examples.
        test: Prompts.
        train_tokens: Of prompts and responses.
        prompt_tokens: Of the training prompts alone.
        test_tokens: Of the test prompts as they are scored, with the shots that fit.
        routed_tokens: Of the test prompts as they are routed, without.
        texts: That strategies write, all draws together.
        longest: Tokens of the longest training example that fits.
        response: Tokens of the longest response.
        measured: Whether they were counted; else they are the most there can be.
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

    @classmethod
    def at_most(cls, it: Experiment, train: int, test: int) -> Sizes:
        """Where text or tokenizer are not here: every example as long as one may be."""
        room = it.backbone.max_length
        response = min(it.evaluation.max_new_tokens, room)
        tested, drawn = test * room, [Draws.of(s).samples for s in it.strategies.values()]
        texts = test * sum(drawn) * (it.evaluation.by == "generation")
        return cls(
            train, test, train * room, train * room, tested, tested, texts, room, response, False
        )

    @classmethod
    def of(cls, it: Experiment) -> Sizes:
        """Of examples that are here, by the backbone's tokenizer.

        Raises:
            ElreaError: An example that cannot be worded, or none that fits.
        """
        prompter = Prompter(it.backbone.tokenizer(), it.room, it.backbone.use_chat_template)
        train, test = it.corpus.train, it.corpus.test
        encoded, dropped = prompter.train(_some(train))
        share = len(train) / (len(encoded) + len(dropped))
        asked = _some(test)
        by, most = it.evaluation.by, it.evaluation.max_new_tokens
        scored, _ = prompter.test(asked, most if by == "generation" else None)
        texts = sum(
            len(written(test, by, strategy)) * Draws.of(strategy).samples
            for strategy in it.strategies.values()
        )
        all_of = len(test) / len(asked)
        return cls(
            len(train), len(test),
            round(share * sum(e.length for e in encoded)),
            round(share * sum(len(e.prompt) for e in encoded)),
            round(all_of * sum(len(e.prompt) for e in scored)),
            round(all_of * sum(len(e.prompt) for e in prompter.routing(asked))),
            texts, max(e.length for e in encoded), max(len(e.response) for e in encoded), True,
        )  # fmt: skip


def forecast(it: Experiment, sizes: Sizes, clusters: int | None) -> list[tuple[str, str]]:
    """Lines of a table: what is counted, and the figure.

    Args:
        it: What to do; of its corpus, the sources of the training examples count.
        sizes: Of the data.
        clusters: C, if it is known.

    Raises:
        ElreaError: An architecture that transformers does not know.
    """
    rows = []
    sources = tuple(sorted({example.source for example in it.corpus.train}))
    needs = Requirements(it.strategies, it.lora, it.training, sources)
    footprint = _footprint(it)
    if footprint is None:
        rows.append(("backbone", "not here, and backbone.shape does not say what it is"))
    else:
        kept = f", {it.backbone.quantise}" if it.backbone.quantise else ""
        rows.append(
            ("backbone", f"{footprint.parameters:,} parameters, {_bytes(footprint.weights)}{kept}")
        )
        of = f"{footprint.adapter:,} parameters (r={it.lora.r})"
        count = len(needs.adapters(clusters or 1)) + 1
        rows.append(
            ("adapters", f"{count} of {of}" if clusters else f"{of} each, as clusters are found")
        )
    rows += _tokens(it, needs, sizes, clusters)
    if footprint:
        try:
            rows += _memory(it, needs, sizes, footprint, clusters)
        except BackboneError:
            rows.append(("memory", "cannot be foreseen for this architecture at this length"))
    return rows


def _some(examples: Sequence[Example]) -> list[Example]:
    """At most LOOK of them, evenly spread."""
    step = -(-len(examples) // LOOK)
    return list(examples[::step])


def _footprint(it: Experiment) -> Footprint | None:
    backbone = it.backbone
    if not (backbone.here or backbone.shape):
        return None
    config = backbone.config() if backbone.here else config_of(backbone.shape)
    return Footprint.of(config, it.lora, dtype_of(it), backbone.quantise)


def dtype_of(it: Experiment) -> str:
    """What the weights that are not quantised will be; where it is planned there may be no GPU yet."""
    wanted = it.backbone.dtype
    if wanted != "auto":
        return wanted
    on_gpu = it.backbone.quantise or it.device.resolve() == "cuda" or it.device.accelerator == "gpu"
    return "bfloat16" if on_gpu else "float32"


def _tokens(
    it: Experiment, needs: Requirements, sizes: Sizes, clusters: int | None
) -> list[tuple[str, str]]:
    c = clusters or 1
    trained = it.training.epochs * sizes.train_tokens
    for job in needs.adapters(c).values():
        share = c if job.examples in ("cluster", "random") else 1
        trained += job.epochs * sizes.train_tokens // share
    routed = it.training.epochs * (
        sizes.prompt_tokens * needs.clustered + sizes.routed_tokens * needs.routed
    )
    about = "about" if sizes.measured else "at most"
    rows = [
        ("examples", f"{sizes.train:,} to train, {sizes.test:,} to test"),
        ("training", f"{about} {_count(trained)} tokens, {it.training.epochs} + {it.training.expert_epochs} epochs"),
        ("gradients", f"{about} {_count(routed)} tokens, of prompts at {it.training.epochs} epochs' ends"),
        ("scoring", f"{about} {_count(sizes.test_tokens)} tokens of prompts for each member"),
    ]  # fmt: skip
    if sizes.texts:
        most = it.evaluation.max_new_tokens
        texts = f"{sizes.texts:,} texts of {most:,} tokens"
        rows.append(("writing", f"at most {_count(sizes.texts * most)} tokens: {texts}"))
    return rows


def _memory(
    it: Experiment, needs: Requirements, sizes: Sizes, footprint: Footprint, clusters: int | None
) -> list[tuple[str, str]]:
    """Peaks, each with what decides it; the library's own buffers and the system's share are not in them."""
    batch, length = it.training.batch_size, sizes.longest
    adapter = OPTIMISED * footprint.adapter
    saved = footprint.saved(batch, length, batch * sizes.response, it.training.recompute)
    rows = [
        (
            "memory, training",
            f"{_bytes(footprint.weights + adapter + saved)}: {batch} x {length:,} tokens at most"
            + (", recomputed" if it.training.recompute else ""),
        )
    ]
    if needs.clustered and (peak := it.features.memory(footprint, length)):
        rows.append(("memory, gradients", f"{_bytes(peak[0])}: {peak[1]}"))
    if sizes.texts:
        members = (clusters or 4) + 1
        cached = footprint.cache * members * it.evaluation.batch_size * length
        used = footprint.weights + 4 * members * footprint.adapter + cached
        rows.append(
            (
                "memory, writing",
                f"{_bytes(used)}: {members} members x {it.evaluation.batch_size} texts",
            )
        )
    return rows


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / MB:.0f} MiB"


def _count(tokens: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g} {name}"
    return f"{tokens:.0f}"
