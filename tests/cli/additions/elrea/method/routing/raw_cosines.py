"""A router that does not standardise the cosines."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from elrea.method.routing.weights import Router


@dataclass(frozen=True)
class RawCosines(Router):
    """w_c = softmax_c(sharpness · cos_c)."""

    sharpness: float = 4.0

    def scores(self, cosines: Tensor) -> Tensor:
        return self.sharpness * cosines
