"""MoE Routing (D.1): every adapted layer sums its members' outputs, weighted in proportion to ELREA's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from elrea.method.ensemble.layerwise import Factors, mixed_outputs
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import Layerwise

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class MoeRouting(Elrea, Layerwise):
    """(α/r)·Σ_c λ_c B_c A_c x in each layer, with λ = w/Σw and the base adapter as c = 0 (D.1)."""

    exported: ClassVar[bool] = True

    @property
    def card(self) -> str:
        return "Every adapted layer sums its members' outputs, weighted in proportion to the routing weights (D.1)."

    def weights(self, routing: Routing) -> Tensor:
        weights = super().weights(routing)
        return weights / weights.sum(dim=1, keepdim=True)

    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        return mixed_outputs(x, factors, factors.weights[:, None])
