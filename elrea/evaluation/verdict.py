"""Which of several strategies will be best with all of the training data, judged from trainings on parts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite
from typing import Literal

import numpy as np
import numpy.typing as npt

from elrea.errors import ConfigError
from elrea.evaluation.learning_curve import Curves, Difference

LADDER = (1 / 8, 1 / 4, 1 / 2)
"""The shares of the data that are trained where the budget allows them, and their ratios where it does not."""
ROWS_PER_CLUSTER = 4
"""Fewest training examples per cluster, on average, at the smallest share."""


@dataclass(frozen=True)
class Verdict:
    """Settings of a verdict (`+experiment=does_it_pay`)."""

    budget: float = 0.5
    """The most that all trainings may take, as a multiple of one full ELREA run: passes x tokens of training."""
    fractions: list[float] | None = None
    """Shares of the training data, each a part of the next; null: 1/8, 1/4 and 1/2, or all three by one factor smaller
    so that they keep to the budget."""
    seeds: int = 1
    """Number of seeds at each share, from the run's own on. More seeds narrow the interval, and cost the more."""
    measure: Literal["accuracy", "loss"] | None = None
    """What decides; null: the accuracy on dev where its examples have choices or a judge, else the loss."""

    def __post_init__(self) -> None:
        if not 0 < self.budget < float("inf"):
            raise ConfigError(f"budget={self.budget}: must be above 0, and finite")
        if self.seeds < 1:
            raise ConfigError(f"seeds={self.seeds}: must be at least 1")
        given = self.fractions
        if given is None:
            return
        if len(given) < 3 or any(not 0 < share < 1 for share in given):
            raise ConfigError(
                "fractions: wants three or more shares above 0 and below 1, since a line through two says nothing of "
                "its own error"
            )
        if sorted(set(given)) != list(given):
            raise ConfigError(
                f"fractions={given}: must rise, since each is a part of the next (nested)"
            )

    def ladder(self, cost: float) -> list[float]:
        """The shares to train.

        Args:
            cost: Of all candidates on all of the data, as a multiple of a full ELREA run.
        """
        if self.fractions is not None:
            return list(self.fractions)
        factor = min(1.0, self.budget / (sum(LADDER) * cost * self.seeds))
        return [factor * share for share in LADDER]

    def check_budget(self, spent: float) -> None:
        """Refuses shares that cost more than the budget.

        Args:
            spent: By all trainings, as a multiple of a full ELREA run.

        Raises:
            ConfigError: It is more than `budget`.
        """
        if spent > self.budget:
            raise ConfigError(
                f"verdict.fractions={self.fractions}: would take {spent:.2f} full ELREA runs, more than "
                f"verdict.budget={self.budget}; say verdict.budget={_up(spent)}, smaller fractions, or fewer "
                "evaluation.strategies"
            )

    def check_rows(self, rows: Sequence[int], of: int, clusters: int, needed: float) -> None:
        """Refuses parts of the data that are too small.

        Args:
            rows: Training examples at each share.
            of: All training examples.
            clusters: C.
            needed: What the smallest parts that are large enough take (`least_rows`), in full ELREA runs; infinite if
                the data are too few for them.

        Raises:
            ConfigError: Too few rows for the clusters, or two shares with the same rows.
        """
        smallest = least_rows(clusters)
        if rows[0] < smallest[0]:
            advice = ["give larger verdict.fractions"]
            if self.fractions is None:
                dear = ", more than a whole ELREA run costs" if needed > 1 else ""
                advice = [f"say verdict.budget={_up(needed)}{dear}"] if isfinite(needed) else []
            advice += ["lower clustering.k"] if clusters > 2 else []
            raise ConfigError(
                f"verdict: {of:,} training examples are too few: the smallest part has {rows[0]:,}, fewer than "
                f"{ROWS_PER_CLUSTER} for each of {clusters} clusters; "
                + ", or ".join([*advice, "give more data"])
            )
        if len(set(rows)) < len(rows):
            raise ConfigError(f"verdict: two fractions have the same {rows[0]:,} training examples")


def least_rows(clusters: int) -> list[int]:
    """The fewest training examples at each share of `LADDER`: `ROWS_PER_CLUSTER` for each cluster at the first."""
    return [round(ROWS_PER_CLUSTER * clusters * share / LADDER[0]) for share in LADDER]


@dataclass(frozen=True)
class Decision:
    """What the curves say of the full size.

    Attributes:
        best: The candidate that the lines put first.
        pick: The candidate to take: `best` if it is decided, else the cheapest that is not told apart from it.
        decided: Whether the interval of `best` against every other candidate excludes 0.
        level: The candidates that are not told apart from `best`, in the order of their costs.
        ahead: `best` less each other candidate, on the measure's scale; where lower is better, the other less `best`.
    """

    best: str
    pick: str
    decided: bool
    level: Sequence[str] = ()
    ahead: Mapping[str, Difference] = field(default_factory=dict)


def decide(
    names: Sequence[str],
    scores: npt.ArrayLike,
    shares: npt.ArrayLike,
    costs: Mapping[str, tuple[float, float]],
    *,
    lower_is_better: bool,
    seed: int,
    resamples: int = 10_000,
) -> Decision:
    """The verdict.

    Args:
        names: Of the candidates.
        scores: `[candidates, points, items]`.
        shares: `[points]`, as for `Curves`.
        costs: By candidate, what it costs at the full size; the first figure that differs decides.
        lower_is_better: Whether scores are losses.
        seed: Of the draws.
        resamples: Number of draws.
    """
    array = np.asarray(scores, dtype=np.float64) * (-1 if lower_is_better else 1)
    curves = Curves(array, shares)
    order = sorted(range(len(names)), key=lambda k: costs[names[k]])
    # Of level candidates the cheapest is the best, down to rounding.
    first = max(order, key=lambda k: round(float(curves.full[k]), 12))
    ahead = {
        names[k]: curves.difference(first, k, seed, resamples)
        for k in range(len(names))
        if k != first
    }
    level = [names[k] for k in order if k != first and not ahead[names[k]].told_apart]
    cheapest = min([names[first], *level], key=lambda name: costs[name])
    return Decision(names[first], cheapest, not level, level, ahead)


def share_text(share: float) -> str:
    """A share of the data in words: "1/8", or "1/11.3" where it is no simple part."""
    simple = Fraction(share).limit_denominator(64)
    if abs(float(simple) - share) < 1e-9:
        return str(simple)
    return f"1/{1 / share:.3g}"


def _up(value: float) -> str:
    """Rounded up to two digits behind the point."""
    return f"{np.ceil(100 * value + 1e-9) / 100:g}"
