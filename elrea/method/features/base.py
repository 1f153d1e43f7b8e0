"""Base class of all features: the vectors δ by which prompts are clustered and routed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from elrea.data.prompts import Encoded

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from elrea.models.footprint import Footprint

Advance = Callable[[int], object]
"""Called with the number of finished passes over one prompt."""

Batches = Sequence[Sequence[Encoded]]
"""Prompts, grouped into the batches that go through the model together."""


class Reader(Protocol):
    """Computes the features of prompts with one model."""

    @property
    def dimension(self) -> int:
        """d, the length of a feature."""
        ...

    @property
    def rounds(self) -> int:
        """Number of passes over each prompt."""
        ...

    def __call__(self, batches: Batches, advance: Advance) -> tuple[Tensor, Tensor]:
        """Features in the batches' order, not normalised.

        Returns:
            The features [b, d] in float32 on the CPU, and a mask [b]: False for prompts without a feature, whose rows
            may hold anything.
        """
        ...


class Features(ABC):
    """Settings of one kind of feature.

    A new kind is a frozen dataclass that derives from this class, in a file of this package, and a YAML file in
    conf/features. A field of type `Features` or `Projection` may hold another component.

    Attributes:
        batch_size: Prompts in one pass at most.
        batch_tokens: Tokens in one pass at most, padding included.
        normalise: Whether a feature is scaled to length 1.
        from_base: Whether the features depend on the base adapter's checkpoints, or on the backbone alone.
        by_loss: Whether they depend on which of a prompt's tokens carry loss (`Encoded.loss_mask`).
        speed_fields: Fields that change speed and memory, and features by rounding at most: they are left out of the
            stage's key.
    """

    batch_size: int
    batch_tokens: int
    normalise: bool
    from_base: ClassVar[bool] = True
    by_loss: ClassVar[bool] = False
    speed_fields: ClassVar[tuple[str, ...]] = ("batch_size", "batch_tokens")

    def check_sizes(self, *names: str) -> None:
        """Rejects sizes below 1.

        Args:
            names: Of the fields.

        Raises:
            ValueError: The first one that is below 1.
        """
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @abstractmethod
    def reader(
        self,
        model: PeftModel,
        checkpoints: Sequence[Path],
        pad_id: int,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Reader:
        """Prepares to compute features.

        Args:
            model: A PEFT model of the base adapter's shape, whose adapter may be replaced.
            checkpoints: One folder per epoch with the base adapter and Adam's moments.
            pad_id: Token id of padding.
            tokenizer: The backbone's, for features that need a prompt's text.
        """

    def passes(self, epochs: int) -> int:
        """Cost of one prompt's feature, in forward passes of the backbone (a backward pass counts as one)."""
        return 1

    def checkpoints(self, epochs: int) -> int:
        """Number of the base adapter's checkpoints, of `epochs`, at which a prompt is passed through the model."""
        return 1

    def identity(self) -> dict[str, Any]:
        """Inputs of the stage's key that neither fields, backbone nor base adapter determine."""
        return {}

    def check(self, epochs: int | None) -> None:
        """Rejects settings that do not fit the training, before it begins.

        Args:
            epochs: Number of the base adapter's epochs; None while early stopping leaves it open.

        Raises:
            ConfigError: Which setting, and why.
        """
        return

    def fits(self, model: PeftModel) -> None:
        """Rejects settings that do not fit the adapted model, before it is trained.

        Raises:
            ConfigError: Which setting, and why.
        """
        return

    def memory(self, footprint: Footprint, length: int) -> tuple[float, str] | None:
        """Expected peak memory of computing features, for the printed plan.

        Args:
            footprint: Of the backbone and one adapter.
            length: Tokens of the longest prompt.

        Returns:
            Bytes, and what they are made of in a few words; None: less than training needs.
        """
        return None


def finish(rows: Tensor, valid: Tensor, normalise: bool) -> tuple[Tensor, Tensor]:
    """Scales features to length 1 if wanted, and sets the rows of prompts without a feature to 0.

    Args:
        rows: Features as a reader returns them [b, d]; written over.
        valid: The reader's mask [b].
        normalise: Whether to scale.

    Returns:
        The rows, and the mask without rows whose length is 0 or not finite.
    """
    import torch

    # Summed in float64: the squares of a small feature would underflow.
    length = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    valid = valid & length.isfinite() & (length > 0)
    if normalise:
        rows.div_(torch.where(valid, length, 1.0)[:, None])
    rows[~valid] = 0.0
    return rows, valid
