"""ELREA: base adapter and experts, weighed by the prompt's gradient (5.8 to 5.10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import (
    BASE,
    AdapterSpec,
    Setting,
    Strategy,
    expert_names,
    experts,
)
from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Elrea(Strategy):
    """w_base·logits_base + Σ_c w_c·logits_c, all experts or the k nearest."""

    top_k: int | None = None
    """Keep the k experts with the largest weights (the base's share stays); null keeps all."""
    base_share: bool = True
    """Let the base adapter take part with w_base. The paper does."""
    routed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}: must be at least 1, or null for all")

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster")

    def members(self, routing: Routing) -> list[str]:
        return [BASE, *expert_names(routing.clusters)]

    def weights(self, routing: Routing) -> Tensor:
        base = routing.base if self.base_share else torch.zeros_like(routing.base)
        return torch.cat([base[:, None], routing.experts(self.top_k)], dim=1)
