"""The shape of a LoRA adapter, and where it starts; importing this module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from elrea.errors import ConfigError

ALL_LINEAR: Literal["all-linear"] = "all-linear"

LARGEST = 3.4028234e38
"""The largest scale of an update that float32 has."""


@dataclass(frozen=True)
class Lora:
    """The shape of an adapter: its layers, rank and scale."""

    r: int = 8
    """Rank of each update B·A. 8 is the paper's main value; it also tries 64."""
    alpha: float | None = None
    """The update is scaled by alpha / r. null means 4·r, as in the paper."""
    dropout: float = 0.1
    """Share of a layer's inputs that the adapter drops in training."""
    targets: list[str] | Literal["all-linear"] = ALL_LINEAR
    """Names of the adapted layers, e.g. [q_proj, v_proj]. "all-linear" is every linear layer that text passes through
    except the output head (GPT-2's Conv1D counts as linear): for Llama and Gemma the seven that the paper adapts.
    Routed experts, routers and what PEFT refuses are left out (`elrea.models.layers`)."""
    rslora: bool = False
    """Scale by alpha / √r instead of alpha / r (rank-stabilised LoRA, Kalajdzievski 2023)."""
    start: str | None = None
    """A PEFT folder with a LoRA adapter for this backbone: the base adapter's training goes on from it. Its rank,
    alpha, scaling and layers replace those above; dropout stays. null draws a fresh adapter."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values that PEFT accepts but cannot train."""
        if self.r < 1:
            raise ConfigError(f"adapter.r={self.r}: the rank must be at least 1")
        if self.alpha is not None and not 0 < self.alpha <= LARGEST:
            raise ConfigError(f"adapter.alpha={self.alpha}: give a positive number, or null (4·r)")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"adapter.dropout={self.dropout}: must be in [0, 1)")
        if self.start is not None and not self.start.strip():
            raise ConfigError("adapter.start='': give a PEFT folder, or null")
        if not self.targets or (isinstance(self.targets, str) and self.targets != ALL_LINEAR):
            raise ConfigError(
                f"adapter.targets={self.targets!r}: give a list of layer names, or all-linear"
            )

    @property
    def scale(self) -> float:
        """The factor of B·A·x: alpha / r, or alpha / √r."""
        return self.peft_alpha / (math.sqrt(self.r) if self.rslora else self.r)

    @property
    def peft_alpha(self) -> float:
        """alpha, 4·r if it is null."""
        return 4.0 * self.r if self.alpha is None else self.alpha

    def of_rank(self, r: int) -> Lora:
        """The same layers with another rank, at the same scale."""
        return replace(self, r=r, alpha=self.scale * (math.sqrt(r) if self.rslora else r))
