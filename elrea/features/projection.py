"""Random projections of flat gradients: g' = R g."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from elrea.errors import ConfigError

BLOCK = 4096
"""Rows of Rᵀ that are held at once."""


class Projection(Protocol):
    """Maps gradients [n, |θ|] to features [n, d], the same way for every example."""

    def __call__(self, gradients: Tensor) -> Tensor: ...

    def dimension(self, size: int) -> int:
        """d for gradients of length `size`."""
        ...


@dataclass(frozen=True)
class Rademacher:
    """The paper's projection: R_ij uniform in {-1, +1}, made again from the seed wherever it is needed."""

    d: int = 1024
    """d_proj. The paper's is 8192, and 512 its ablation."""
    seed: int = 0
    """Of the signs. Features of different seeds cannot be compared."""

    def __post_init__(self) -> None:
        if self.d < 1 or self.seed < 0:
            raise ConfigError(f"d={self.d} must be at least 1 and seed={self.seed} 0 or more")

    def dimension(self, size: int) -> int:
        return self.d

    def signs(self, block: int, rows: int, device: torch.device) -> Tensor:
        """Rows [block·4096, …) of Rᵀ as float32 ±1, [rows, d]."""
        bits = -(-rows * self.d // 8)
        raw = np.frombuffer(
            np.random.Philox(key=[self.seed, block]).random_raw(-(-bits // 8)).tobytes(), np.uint8
        )
        packed = torch.from_numpy(np.unpackbits(raw[:bits])[: rows * self.d]).to(device)
        return packed.view(rows, self.d).float().mul_(2).sub_(1)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Returns R g / √d for each row: the scale keeps lengths, and cosines do not see it."""
        out = gradients.new_zeros(len(gradients), self.d)
        for block, part in enumerate(gradients.split(BLOCK, dim=1)):
            out.addmm_(part, self.signs(block, part.shape[1], gradients.device))
        return out.div_(self.d**0.5)


@dataclass(frozen=True)
class Full:
    """No projection: full gradients, for small adapters."""

    def dimension(self, size: int) -> int:
        return size

    def __call__(self, gradients: Tensor) -> Tensor:
        return gradients.clone()
