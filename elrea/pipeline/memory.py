"""Estimates the peak memory of each kind of work of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from elrea.method.ensemble.likelihood import LOGITS, vocabulary
from elrea.models.footprint import OPTIMISED, Footprint

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.method.ensemble.requirements import Requirements
    from elrea.pipeline.context import Context
    from elrea.pipeline.experiment import Experiment
    from elrea.pipeline.sizes import Sizes

MB = 2**20
ASSUMED_CLUSTERS = 4
"""C in forecasts where it is known only after clustering."""
COPIES = 2.2
"""Memory of scoring beside the weights, over that of the logits that a batch reads, as measured."""


def memory(
    contexts: Sequence[Context],
    needs: Requirements,
    sizes: Sizes,
    footprint: Footprint,
    clusters: int | None,
) -> list[tuple[str, str]]:
    """Peak memory of each kind of work, with the size that determines it.

    Buffers of the libraries and of the operating system are not included.
    """
    experiment, count = contexts[0].experiment, clusters or ASSUMED_CLUSTERS
    batch, length = experiment.training.batch_size, sizes.longest
    specs = needs.adapters(count).values()
    wide = [spec for spec in specs if spec.steering is None]
    adapter = max(
        _optimised(footprint.adapter * rank // experiment.lora.r, held)
        for rank, held in [(experiment.lora.r, 0)]
        + [(spec.lora.r, count * (spec.by_cluster == "project")) for spec in wide]
    )
    saved = footprint.saved(batch, length, batch * sizes.response, experiment.training.recompute)
    rows = [
        (
            "memory, training",
            f"{in_bytes(footprint.weights + adapter + saved)}: {batch} x {length:,} tokens at most"
            + (", recomputed" if experiment.training.recompute else ""),
        )
    ]
    used = [context.experiment.features for context in contexts if context.requirements.clustered]
    if peaks := [peak for features in used if (peak := features.memory(footprint, length))]:
        most, of_what = max(peaks)
        rows.append(("memory, gradients", f"{in_bytes(most)}: {of_what}"))
    members = 1 + len(specs) + ("backbone" in experiment.strategies)  # base is in no strategy's own
    rows.append(("memory, scoring", _scoring(experiment, members, sizes, footprint)))
    if sizes.texts:
        size = experiment.evaluation.batch_size
        cached = footprint.cache * (count + 1) * size * length
        texts = footprint.weights + 4 * (count + 1) * footprint.adapter + cached
        rows.append(("memory, writing", f"{in_bytes(texts)}: {count + 1} members x {size} texts"))
    return rows


def _scoring(experiment: Experiment, members: int, sizes: Sizes, footprint: Footprint) -> str:
    """Weights of the backbone and of all members, and their logits at the places that one batch reads.

    Each choice and response is taken to have as many tokens as the longest response in training.
    """
    counts = (_places(example, sizes.response) for example in experiment.corpus.test)
    places, size = max(counts, default=sizes.response), experiment.evaluation.batch_size
    each = members * places * vocabulary(footprint.model)
    logits = min(size * each, max(LOGITS, each))
    needed = footprint.weights + 4 * members * footprint.adapter + COPIES * 4 * logits
    return f"{in_bytes(needed)}: {members} members x {min(size, max(1, LOGITS // each))} x {places:,} tokens at most"


def _places(example: Example, response: int) -> int:
    """Where the logits of an example are read: at each token of its response or choices; once for all letters."""
    choices = example.choices
    return 1 if choices and max(map(len, choices)) == 1 else response * max(1, len(choices))


def _optimised(parameters: int, gradients: int) -> int:
    """Bytes of an adapter in training; `gradients` of clusters are held beside it twice, while they are projected."""
    return (OPTIMISED + 8 * gradients) * parameters


def in_bytes(count: float) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / MB:.0f} MiB"
