"""Sparse random projection of flat gradients, g' = S g, at a small part of a dense one's cost.

scikit-learn's SparseRandomProjection is for the CPU only, and at its default density, 1/√|θ|, most coordinates of a
long gradient get no nonzero entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.features.projection import Projection, random_bytes, unpack_signs

GROUP_WORDS = 1 << 17
"""Approximate number of coordinates whose signs are generated at a time."""


@dataclass(frozen=True)
class Sjlt(Projection):
    """Sparse Johnson-Lindenstrauss transform: each coordinate is added to `nonzeros` of d buckets, with random signs.

    Coordinates are split into blocks of d. Coordinate i of a block is added to the buckets (i + shift_j) mod d, for
    `nonzeros` different shifts drawn for the block, each time with an independent sign. Two coordinates share a bucket
    with probability 1/d (in the same block: less). As with a dense matrix of signs, E[SᵀS] = I, and the variance of
    ⟨Sx, Sy⟩ is at most (‖x‖²‖y‖² + ⟨x, y⟩²)/d. Contiguous memory is added to contiguous memory, without any index.
    """

    d: int = 1024
    """Number of buckets, the dimension of a feature."""
    seed: int = 0
    """Seed of shifts and signs. Features of different seeds cannot be compared."""
    nonzeros: int = 1
    """Buckets per coordinate. The variance does not depend on it; more soften collisions of large entries."""

    def __post_init__(self) -> None:
        if self.d < 1 or self.seed < 0:
            raise ConfigError(f"d={self.d} must be at least 1 and seed={self.seed} 0 or more")
        if not 1 <= self.nonzeros <= self.d:
            raise ConfigError(f"nonzeros={self.nonzeros} must be in 1 to d={self.d}")

    def dimension(self, size: int) -> int:
        return self.d

    def __call__(self, gradients: Tensor) -> Tensor:
        """S g of each row of [n, |θ|]: [n, d]. Lengths are kept on average."""
        out = gradients.new_zeros(len(gradients), self.d)
        add = _ring if gradients.device.type == "cpu" else _gather
        for start, shifts, signs in self.groups(gradients.shape[1], gradients.device):
            columns = gradients[:, start : start + signs.shape[1] * self.d]
            add(out, columns, shifts, signs)
        return out.div_(self.nonzeros**0.5)

    def groups(self, size: int, device: torch.device) -> Iterator[tuple[int, np.ndarray, Tensor]]:
        """S in groups of blocks, each generated from the seed and its number alone.

        Args:
            size: |θ|.
            device: Device of the signs.

        Yields:
            Number of the first coordinate, shifts [blocks, nonzeros], and signs [nonzeros, blocks, d] in float32.
        """
        per_group = max(1, GROUP_WORDS // self.d)
        for group, start in enumerate(range(0, size, per_group * self.d)):
            blocks = min(per_group, -(-(size - start) // self.d))
            raw = random_bytes((self.seed, 2 * group), 8 * per_group * self.nonzeros)
            words = raw.view(np.uint64).reshape(per_group, self.nonzeros)
            shifts = _distinct(words[:blocks], self.d)
            signs = [self._signs(group, j, blocks, per_group, device) for j in range(self.nonzeros)]
            yield start, shifts, torch.stack(signs)

    def _signs(
        self, group: int, j: int, blocks: int, per_group: int, device: torch.device
    ) -> Tensor:
        each = -(-self.d // 8)
        bits = random_bytes((self.seed, (2 * group + 1) + (j << 40)), per_group * each)
        return unpack_signs(bits[: blocks * each], device).view(blocks, -1)[:, : self.d]


def _distinct(words: np.ndarray, d: int) -> np.ndarray:
    """For each row of 64-bit words [m, k], k different numbers below d, all sets equally likely (Floyd's algorithm)."""
    m, k = words.shape
    chosen = np.empty((m, k), np.int64)
    for j in range(k):
        top = d - k + j
        drawn = (words[:, j] % np.uint64(top + 1)).astype(np.int64)
        taken = (chosen[:, :j] == drawn[:, None]).any(axis=1)
        chosen[:, j] = np.where(taken, top, drawn)
    return chosen


def _ring(out: Tensor, columns: Tensor, shifts: np.ndarray, signs: Tensor) -> None:
    """Adds blocks, times their signs, to the buckets [n, d], starting at each shift and wrapping around at the end."""
    d = out.shape[1]
    for block, row in enumerate(shifts.tolist()):
        part = columns[:, block * d : (block + 1) * d]
        width = part.shape[1]  # the last block may be short
        for shift, sign in zip(row, signs[:, block], strict=True):
            head = min(d - shift, width)
            out[:, shift : shift + head].addcmul_(part[:, :head], sign[:head])
            if head < width:
                out[:, : width - head].addcmul_(part[:, head:], sign[head:width])


def _gather(out: Tensor, columns: Tensor, shifts: np.ndarray, signs: Tensor) -> None:
    """The same as `_ring` in few operations over all blocks each, for an accelerator."""
    (n, width), d, blocks = columns.shape, out.shape[1], len(shifts)
    signed = columns.new_zeros(n, blocks * d)
    for turn, sign in zip(shifts.T, signs, strict=True):
        torch.mul(columns, sign.reshape(-1)[:width], out=signed[:, :width])
        index = torch.arange(d)[None, :] - torch.from_numpy(turn)[:, None]
        index = index.remainder_(d).to(out.device).expand(n, blocks, d)
        out.add_(signed.view(n, blocks, d).gather(2, index).sum(1))
