"""Base class of projections of flat gradients, g' = R g, and the paper's dense random projection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from elrea.errors import ConfigError

BLOCK = 4096
"""Number of rows of Rᵀ that are in memory at once."""


class Projection(ABC):
    """Maps gradients to features, the same way for every example.

    A new one is a frozen dataclass that derives from this class, in a file of this package, and a YAML file in
    conf/features/projection.
    """

    @abstractmethod
    def __call__(self, gradients: Tensor) -> Tensor:
        """Projects each row of [n, |θ|] to [n, d]; `gradients` stay as they are."""

    @abstractmethod
    def dimension(self, size: int) -> int:
        """d for gradients of length `size`."""


@dataclass(frozen=True)
class Rademacher(Projection):
    """The paper's projection: R_ij uniform in {-1, +1}, generated from the seed block by block and never stored."""

    d: int = 1024
    """d_proj. The paper's is 8192, and 512 in its ablation."""
    seed: int = 0
    """Seed of the signs. Features of different seeds cannot be compared."""

    def __post_init__(self) -> None:
        if self.d < 1 or self.seed < 0:
            raise ConfigError(f"d={self.d} must be at least 1 and seed={self.seed} 0 or more")

    def dimension(self, size: int) -> int:
        return self.d

    def signs(
        self, block: int, rows: int, device: torch.device, out: Tensor | None = None
    ) -> Tensor:
        """Rows of Rᵀ from block·4096 on, as ±1 in float32 [rows, d].

        Args:
            block: Number of the block.
            rows: Number of rows.
            device: Device of the result.
            out: Memory to write to, float32 of at least [⌈rows·d/8⌉, 8]: it can be reused from block to block.
        """
        count = -(-rows * self.d // 8)
        bits = random_bytes((self.seed, block), count)
        return unpack_signs(bits, device, out).view(-1)[: rows * self.d].view(rows, self.d)

    def __call__(self, gradients: Tensor) -> Tensor:
        """R g / √d of each row. The scale keeps lengths on average, and does not change cosines."""
        out = gradients.new_zeros(len(gradients), self.d)
        rows = min(BLOCK, gradients.shape[1])
        memory = gradients.new_empty(-(-rows * self.d // 8), 8)
        for block, part in enumerate(gradients.split(BLOCK, dim=1)):
            out.addmm_(part, self.signs(block, part.shape[1], gradients.device, memory))
        return out.div_(self.d**0.5)


@dataclass(frozen=True)
class Full(Projection):
    """No projection: features are full gradients, for small adapters."""

    def dimension(self, size: int) -> int:
        return size

    def __call__(self, gradients: Tensor) -> Tensor:
        return gradients.clone()


def random_bytes(key: tuple[int, int], count: int) -> np.ndarray:
    """Bytes [count] that depend on the key alone: raw words of Philox, which are the same in all versions of numpy."""
    words = np.random.Philox(key=list(key)).random_raw(-(-count // 8))
    return np.frombuffer(words.tobytes(), np.uint8)[:count]


def unpack_signs(bits: np.ndarray, device: torch.device, out: Tensor | None = None) -> Tensor:
    """Unpacks bits, the highest of a byte first, to signs: 1 to +1 and 0 to -1.

    Args:
        bits: Bytes [n].
        device: Device of the result; the bits are copied there before they are unpacked.
        out: Memory to write to, float32 of at least [n, 8].

    Returns:
        [n, 8] in float32.
    """
    if out is None:
        out = torch.empty(len(bits), 8, device=device)
    out = out[: len(bits)]
    # A table with the eight signs of every byte is faster than any way by bit operations.
    if device.type == "cpu":
        np.take(_table().numpy(), bits, axis=0, out=out.numpy(), mode="clip")
        return out
    index = torch.tensor(bits, device=device).int()
    return torch.index_select(_table().to(device), 0, index, out=out)


@lru_cache(maxsize=1)
def _table() -> Tensor:
    """The eight signs of every byte [256, 8]."""
    unpacked = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return torch.from_numpy(unpacked).float().mul_(2).sub_(1)
