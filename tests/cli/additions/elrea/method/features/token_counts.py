"""Token counts of a prompt as its feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.method.features.base import Advance, Batches, Features
from elrea.method.features.projection import Full, Projection

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenCounts(Features):
    """How often each token of the vocabulary occurs in a prompt, projected."""

    projection: Projection = field(default_factory=Full)
    normalise: bool = True
    batch_size: int = 64
    batch_tokens: int = 65_536
    from_base: ClassVar[bool] = False

    def passes(self, epochs: int) -> int:
        return 0

    def reader(
        self,
        model: PeftModel,
        checkpoints: Sequence[Path],
        pad_id: int,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> CountReader:
        return CountReader(self.projection, int(model.get_input_embeddings().num_embeddings))


class CountReader:
    """Counts tokens, without the model."""

    rounds = 1

    def __init__(self, projection: Projection, vocabulary: int) -> None:
        self.projection, self.vocabulary = projection, vocabulary
        self.dimension = projection.dimension(vocabulary)

    def __call__(self, batches: Batches, advance: Advance) -> tuple[Tensor, Tensor]:
        prompts = [prompt for batch in batches for prompt in batch]
        counts = torch.zeros(len(prompts), self.vocabulary)
        for row, prompt in zip(counts, prompts, strict=True):
            row += torch.bincount(torch.tensor(prompt.prompt), minlength=self.vocabulary)
        advance(len(prompts))
        return self.projection(counts), counts.any(dim=1)
