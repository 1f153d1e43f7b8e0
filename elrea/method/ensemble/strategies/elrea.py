"""ELREA: base adapter and experts, weighted by the prompt's gradient (5.8 to 5.10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import (
    BASE,
    AdapterSpec,
    Rated,
    Setting,
    Strategy,
    expert_names,
    experts,
)

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Elrea(Rated, Strategy):
    """w_base·logits_base + Σ_c w_c·logits_c over all experts or the k nearest (5.10)."""

    top_k: int | None = None
    """Use the k experts with the largest weights only (w_base stays the same); null uses all."""
    base_share: bool = True
    """Include the base adapter with weight w_base, as in the paper."""
    rate: float = 1.0
    """The experts' highest learning rate, as a multiple of training.expert_learning_rate."""
    added_fields: ClassVar[tuple[str, ...]] = ("rate",)
    routed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}: must be at least 1, or null for all")

    @property
    def exported(self) -> bool:
        return self.top_k is not None or not self.base_share

    @property
    def card(self) -> str:
        if not self.exported:
            return ""
        if self.top_k is None:
            which = "All experts answer together"
        elif self.top_k == 1:
            which = "The nearest expert answers"
        else:
            which = f"The {self.top_k} nearest experts answer together"
        return f"{which}, {'with' if self.base_share else 'without'} the base adapter."

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster", self.rate)

    def members(self, routing: Routing) -> list[str]:
        return [BASE, *expert_names(routing.clusters, "cluster", self.rate)]

    def weights(self, routing: Routing) -> Tensor:
        base = routing.base if self.base_share else torch.zeros_like(routing.base)
        return torch.cat([base[:, None], routing.experts(self.top_k)], dim=1)
