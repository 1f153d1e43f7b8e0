"""Random projections of flat gradients: g' = R g."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from elrea.errors import ConfigError

BLOCK = 4096
"""Rows of Rᵀ that are held at once."""


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

    def signs(
        self, block: int, rows: int, device: torch.device, out: Tensor | None = None
    ) -> Tensor:
        """Rows [block·4096, …) of Rᵀ as float32 ±1, [rows, d].

        Args:
            block: Which.
            rows: How many.
            device: Where they are wanted.
            out: Memory to write to, at least (⌈rows·d/8⌉, 8) of float32; a block is 16 MB that need not be new.
        """
        count = -(-rows * self.d // 8)
        bits = random_bytes((self.seed, block), count)
        return unpack_signs(bits, device, out).view(-1)[: rows * self.d].view(rows, self.d)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Returns R g / √d for each row: the scale keeps lengths, and cosines do not see it."""
        out = gradients.new_zeros(len(gradients), self.d)
        rows = min(BLOCK, gradients.shape[1])
        memory = gradients.new_empty(-(-rows * self.d // 8), 8)
        for block, part in enumerate(gradients.split(BLOCK, dim=1)):
            out.addmm_(part, self.signs(block, part.shape[1], gradients.device, memory))
        return out.div_(self.d**0.5)


@dataclass(frozen=True)
class Full(Projection):
    """No projection: full gradients, for small adapters."""

    def dimension(self, size: int) -> int:
        return size

    def __call__(self, gradients: Tensor) -> Tensor:
        return gradients.clone()


def random_bytes(key: tuple[int, int], count: int) -> np.ndarray:
    """Bytes [count] that depend on the key alone: Philox's raw words, which no version of numpy changes."""
    words = np.random.Philox(key=list(key)).random_raw(-(-count // 8))
    return np.frombuffer(words.tobytes(), np.uint8)[:count]


def unpack_signs(bits: np.ndarray, device: torch.device, out: Tensor | None = None) -> Tensor:
    """Signs of packed bits, the highest first, 1 as +1 and 0 as -1.

    Args:
        bits: Bytes [n].
        device: Where the signs are wanted; they travel packed.
        out: Memory to write to, float32 of at least [n, 8].

    Returns:
        [n, 8] in float32.
    """
    if out is None:
        out = torch.empty(len(bits), 8, device=device)
    out = out[: len(bits)]
    # A table of what each byte holds is the quickest way there: one look-up writes eight signs.
    if device.type == "cpu":
        np.take(_table().numpy(), bits, axis=0, out=out.numpy(), mode="clip")
        return out
    index = torch.from_numpy(bits.astype(np.int32)).to(device)
    return torch.index_select(_table().to(device), 0, index, out=out)


@lru_cache(maxsize=1)
def _table() -> Tensor:
    """[256, 8]: the signs of every byte."""
    unpacked = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return torch.from_numpy(unpacked).float().mul_(2).sub_(1)
