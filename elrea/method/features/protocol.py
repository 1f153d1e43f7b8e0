"""What a prompt's feature is, whatever it is made of: the protocol that extraction and pipeline know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from elrea.data.prompts import Encoded

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

Advance = Callable[[int], object]
"""Told how many passes over one prompt are done."""

Batches = Sequence[Sequence[Encoded]]
"""Prompts, cut into what goes through the model together."""


class Reader(Protocol):
    """Takes the features of prompts with one model."""

    @property
    def dimension(self) -> int:
        """d."""
        ...

    @property
    def rounds(self) -> int:
        """Passes over each prompt."""
        ...

    def __call__(self, batches: Batches, advance: Advance) -> tuple[Tensor, Tensor]:
        """Rows in the batches' order, not normalised.

        Returns:
            [b, d] in float32 on the CPU, and [b] False for prompts that have none (its row may hold anything).
        """
        ...


class Features(Protocol):
    """A choice of features; a dataclass that a config names."""

    @property
    def batch_size(self) -> int:
        """Prompts in one pass at most."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Tokens in one pass at most, padding included."""
        ...

    @property
    def normalise(self) -> bool:
        """Whether a feature has length 1."""
        ...

    @property
    def from_base(self) -> bool:
        """Whether the base adapter's epochs decide the features, or the backbone alone."""
        ...

    def passes(self, epochs: int) -> int:
        """What one prompt's feature costs, in forward passes."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides the features beside fields, backbone and base adapter, for a stage's key."""
        ...

    def check(self, epochs: int) -> None:
        """Refuses settings that do not fit the training, before it begins.

        Raises:
            ConfigError: Which.
        """
        ...

    def fits(self, model: PeftModel) -> None:
        """Refuses settings that do not fit the adapted model, before it is trained.

        Raises:
            ConfigError: Which.
        """
        ...

    def reader(
        self,
        model: PeftModel,
        checkpoints: Sequence[Path],
        pad_id: int,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Reader:
        """Makes ready to take features.

        Args:
            model: A PEFT model of the base adapter's shape, whose adapter may be replaced.
            checkpoints: One folder per epoch with the base adapter and Adam's moments.
            pad_id: The id that fills up short prompts.
            tokenizer: The backbone's, for features that are made of words.
        """
        ...


def finish(rows: Tensor, fine: Tensor, normalise: bool) -> tuple[Tensor, Tensor]:
    """Brings rows to length 1 where that is wanted, and to 0 where a prompt has no feature.

    Args:
        rows: What a reader gave [b, d]; written over.
        fine: Likewise [b].
        normalise: Whether rows are brought to length 1.

    Returns:
        The rows, and `fine` less those that have no direction.
    """
    # Summed in float64: the squares of a small feature would underflow.
    length = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    fine = fine & length.isfinite() & (length > 0)
    if normalise:
        rows.div_(torch.where(fine, length, 1.0)[:, None])
    rows[~fine] = 0.0
    return rows, fine
