"""One adapter for all examples, whose clusters' gradients are projected where they conflict (PCGrad)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from elrea.method.ensemble.strategies.matched import Matched
from elrea.method.ensemble.strategy import ByCluster


@dataclass(frozen=True)
class Projected(Matched):
    """`Matched` with gradient surgery between the clusters (Yu et al. 2020, algorithm 1), in the space of A and B.

    Of each step, g_c is the gradient of cluster c's part of the loss with respect to all A and B. From ĝ_c = g_c, for
    the other clusters d in random order, ĝ_c ← ĝ_c - (ĝ_c·g_d / ‖g_d‖²) g_d where ĝ_c·g_d < 0. Adam takes Σ_c ĝ_c;
    without conflicts that is the step's gradient.
    """

    rank_times_clusters: bool = True
    """Use rank C·r, with as many parameters as all experts together."""
    names: ClassVar[tuple[str, str]] = ("projected", "projected-narrow")
    by_cluster: ClassVar[ByCluster | None] = "project"
