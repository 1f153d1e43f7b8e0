"""One adapter for all examples, whose steps see every cluster as often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from elrea.method.ensemble.strategies.matched import Matched
from elrea.method.ensemble.strategy import ByCluster


@dataclass(frozen=True)
class Balanced(Matched):
    """`Matched` on examples that are drawn with P(i) = 1 / (C·n_c) for an example i of cluster c with n_c examples.

    There are as many draws as the other has: N = E·n for n examples and E epochs. Each cluster gets N/C of them, to
    one, and each of its examples ⌊N/(C·n_c)⌋ or one more.
    """

    rank_times_clusters: bool = True
    """Use rank C·r, with as many parameters as all experts together."""
    names: ClassVar[tuple[str, str]] = ("balanced", "balanced-narrow")
    by_cluster: ClassVar[ByCluster | None] = "balance"
