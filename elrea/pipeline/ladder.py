"""The trainings of a verdict: parts of the training data, each within the next, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elrea.data.sampling import nested
from elrea.errors import ConfigError
from elrea.evaluation.verdict import LADDER, Verdict, least_rows
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import Picking
from elrea.pipeline.assemble import REFERENCES
from elrea.pipeline.data_needed import untrained_source
from elrea.pipeline.passes import passes
from elrea.pipeline.sizes import Sizes

if TYPE_CHECKING:
    from elrea.data.corpus import Corpus
    from elrea.data.examples import Example
    from elrea.pipeline.experiment import Experiment

SEED = 0
"""Of the parts' draw: those of all seeds have the same rows."""


@dataclass(frozen=True)
class Part:
    """Training of all candidates on one part of the data with one seed.

    Attributes:
        rows: Training examples.
        share: Of all training examples.
        seed: Of the run.
        cost: Passes x tokens, as a multiple of a full ELREA run.
    """

    rows: int
    share: float
    seed: int
    cost: float


@dataclass(frozen=True)
class Ladder:
    """All parts, and what the candidates cost at the full size.

    Attributes:
        parts: Small ones first, and within a size the seeds in order.
        rows: All training examples.
        elrea: Passes x tokens of a full ELREA run: the unit of every cost.
        costs: By candidate, of its training on all of the data, with all that it needs.
        halves: What 1/8, 1/4 and 1/2 would cost.
    """

    parts: Sequence[Part]
    rows: int
    elrea: float
    costs: Mapping[str, float]
    halves: float

    @property
    def spent(self) -> float:
        """Cost of all parts."""
        return sum(part.cost for part in self.parts)


def ladder_of(experiment: Experiment, settings: Verdict, *, measured: bool = True) -> Ladder:
    """Chooses the parts.

    Args:
        experiment: On all of the data; it scores dev.
        settings: Of the verdict.
        measured: Count tokens; else, where the tokenizer is not on this machine, take the most there can be.

    Raises:
        ConfigError: Settings with which there can be no verdict, too few rows, or a budget that is too small.
    """
    _check(experiment)
    corpus, names = experiment.corpus, candidates(experiment)
    sources = len({example.source for example in corpus.train})
    clusters = experiment.clustering.known_k() or max(1, sources)
    measured = measured or experiment.backbone.here
    all_sizes = _sizes(experiment, corpus, measured)
    whole = passes(experiment, clusters)
    alone = {
        name: passes(
            replace(experiment, strategies={name: experiment.strategies[name]}),
            clusters,
            alone=True,
        )
        for name in names
    }
    full = passes(replace(experiment, strategies={"elrea": Elrea()}), clusters)
    unit = full.tokens(*all_sizes)
    cost = whole.tokens(*all_sizes) / unit
    count = len(corpus.train)

    def costs_of(rows: Sequence[int]) -> list[float]:
        """Of parts with one seed, each as a multiple of a full ELREA run."""
        parts = [replace(corpus, train=nested(corpus.train, n, SEED)) for n in rows]
        return [whole.tokens(*_sizes(experiment, part, measured)) / unit for part in parts]

    rows = _rows(settings, settings.ladder(cost), count, clusters, costs_of)
    costs = costs_of(rows)
    settings.check_budget(settings.seeds * sum(costs))
    check_sources(experiment, names, nested(corpus.train, rows[0], SEED))
    parts = [
        Part(n, n / count, experiment.seed + seed, cost)
        for n, cost in zip(rows, costs, strict=True)
        for seed in range(settings.seeds)
    ]
    of_all = {name: each.tokens(*all_sizes) / unit for name, each in alone.items()}
    return Ladder(parts, count, unit, of_all, sum(LADDER) * cost * settings.seeds)


def _rows(
    settings: Verdict,
    shares: Sequence[float],
    count: int,
    clusters: int,
    costs_of: Callable[[Sequence[int]], list[float]],
) -> list[int]:
    """Training examples of each part, as many as the budget allows."""
    smallest, needed = least_rows(clusters), math.inf
    while True:
        rows = [max(1, int(share * count + 1e-9)) for share in shares]
        if settings.fractions is not None:
            settings.check_rows(rows, count, clusters, needed)
            return rows
        if rows[0] < smallest[0]:
            if smallest[0] <= LADDER[0] * count:
                needed = settings.seeds * sum(costs_of(smallest))
            if needed <= settings.budget:
                return smallest
        settings.check_rows(rows, count, clusters, needed)
        spent = settings.seeds * sum(costs_of(rows))
        if spent <= settings.budget:
            return rows
        # A part's texts are longer than the average.
        shares = [share * 0.999 * settings.budget / spent for share in shares]


def candidates(experiment: Experiment) -> list[str]:
    """Names of the strategies between which a verdict decides; one that picks by the right answers is none."""
    return [
        name
        for name, strategy in experiment.strategies.items()
        if name not in REFERENCES and not isinstance(strategy, Picking)
    ]


def _check(experiment: Experiment) -> None:
    """Refuses a verdict between fewer than two candidates."""
    if len(candidates(experiment)) < 2:
        raise ConfigError(
            "verdict: needs two candidates besides base and backbone: name them in evaluation.strategies"
        )


def check_sources(
    experiment: Experiment, names: Sequence[str], smallest: Sequence[Example]
) -> None:
    """Refuses a candidate that answers by source if the smallest part lacks one of dev's."""
    odd = untrained_source(smallest, experiment.corpus.test)
    for name in names:
        if odd is not None and experiment.strategies[name].by_source:
            raise ConfigError(
                f"verdict: {name} needs training examples of every source, and the smallest part, of {len(smallest)}, "
                f"has none of {odd!r}; raise verdict.fractions, or leave it out"
            )


def _sizes(experiment: Experiment, corpus: Corpus, measured: bool) -> tuple[int, int]:
    """Tokens of all training examples of a corpus, and of their prompts alone."""
    part = replace(experiment, corpus=corpus)
    train, test = len(corpus.train), len(corpus.test)
    sizes = Sizes.measure(part) if measured else Sizes.upper_bounds(part, train, test)
    return sizes.train_tokens, sizes.prompt_tokens
