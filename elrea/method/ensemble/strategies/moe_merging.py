"""MoE Merging (D.1): one adapter per prompt, whose factors are weighted means of the members' factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elrea.method.ensemble.strategies.moe_routing import MoeRouting

if TYPE_CHECKING:
    from elrea.method.ensemble.layerwise import Factors


@dataclass(frozen=True)
class MoeMerging(MoeRouting):
    """A = Σ_c λ_c A_c and B = Σ_c λ_c B_c, and (α/r)·B A x in each layer, with λ = w/Σw (D.1).

    A and B are averaged separately, as in the paper: B A is not the mean of the members' B_c A_c.
    """

    @property
    def card(self) -> str:
        return "Every adapted layer has one adapter per prompt: the weighted means of all A and of all B (D.1)."

    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        a = torch.einsum("bm,mri->bri", factors.weights, factors.a)
        b = torch.einsum("bm,mor->bor", factors.weights, factors.b)
        return x @ a.transpose(1, 2) @ b.transpose(1, 2)
