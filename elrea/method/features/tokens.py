"""Counts of a prompt's tokens as features: what a reader of the text alone knows, without any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from elrea.errors import ConfigError
from elrea.method.features.base import Advance, Batches, Features

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens(Features):
    """Hashed counts of the prompt's token ids (scikit-learn's FeatureHasher), in place of its gradient."""

    d: int = 2048
    """Dimension of a feature. Ids that share a bucket are added with random signs."""
    normalise: bool = True
    """Scale a feature to length 1."""
    batch_size: int = 1024
    """Prompts that are counted together."""
    batch_tokens: int = 1_000_000
    """Tokens that are counted together at most."""
    from_base: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("d", "batch_size", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"features.{name}={getattr(self, name)} must be at least 1")

    def passes(self, epochs: int) -> int:
        """None: no model is run."""
        return 0

    def reader(
        self,
        model: PeftModel,
        checkpoints: Sequence[Path],
        pad_id: int,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> TokenReader:
        return TokenReader(self.d)


class TokenReader:
    """Counts tokens.

    Args:
        d: Dimension of a feature.
    """

    rounds = 1

    def __init__(self, d: int) -> None:
        from sklearn.feature_extraction import FeatureHasher

        self.dimension = d
        self._hasher = FeatureHasher(d, input_type="dict", dtype="float32")

    def __call__(self, batches: Batches, advance: Advance) -> tuple[Tensor, Tensor]:
        rows = []
        for batch in batches:
            counts = [Counter(map(str, prompt.prompt)) for prompt in batch]
            rows.append(torch.from_numpy(self._hasher.transform(counts).toarray()))
            advance(len(batch))
        found = torch.cat(rows)
        return found, found.any(1)
