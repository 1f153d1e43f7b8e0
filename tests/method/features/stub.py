"""Features that cost nothing: rows drawn from a prompt's id, for tests of what is done with them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from elrea.data.prompts import Encoded
from elrea.method.features.base import Features


@dataclass(frozen=True)
class Drawn(Features):
    """Settings as extraction asks for them."""

    batch_size: int = 4
    batch_tokens: int = 10_000
    normalise: bool = True

    def reader(self, *_: Any) -> Any:
        raise NotImplementedError


class DrawnReader:
    """Prompts whose id begins with "bad" have no feature."""

    rounds = 1

    def __init__(self, dimension: int = 8) -> None:
        self.dimension = dimension
        self.seen: list[str] = []

    def __call__(
        self, batches: Sequence[Sequence[Encoded]], advance: Callable[[int], object]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = [prompt for batch in batches for prompt in batch]
        rows = np.stack([row(prompt.id, self.dimension) for prompt in found])
        for batch in batches:
            advance(len(batch))
            self.seen += [prompt.id for prompt in batch]
        fine = torch.tensor([not prompt.id.startswith("bad") for prompt in found])
        return torch.from_numpy(rows), fine


def row(name: str, d: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(d, dtype=np.float32)


def prompts(count: int, bad: Sequence[int] = ()) -> list[Encoded]:
    """Prompts of 1 to 30 tokens."""
    lengths = np.random.default_rng(0).integers(1, 31, count)
    names = [f"bad/{i}" if i in bad else f"p/{i}" for i in range(count)]
    return [Encoded(n, (3,) * int(t), ()) for n, t in zip(names, lengths, strict=True)]
