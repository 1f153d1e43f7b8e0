"""MoE Merging (D.1): the members' factors are averaged to one adapter for each prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elrea.method.ensemble.layerwise import Factors
from elrea.method.ensemble.strategies.moe_routing import MoeRouting


@dataclass(frozen=True)
class MoeMerging(MoeRouting):
    """A = Σ_c λ_c A_c and B = Σ_c λ_c B_c, then (α/r)·B A x in each layer, λ = w/Σw.

    The factors are averaged one by one, as the paper has it: B A is not the average of the members' B_c A_c.
    """

    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        a = torch.einsum("bm,mri->bri", factors.weights, factors.a)
        b = torch.einsum("bm,mor->bor", factors.weights, factors.b)
        return x @ a.transpose(1, 2) @ b.transpose(1, 2)
