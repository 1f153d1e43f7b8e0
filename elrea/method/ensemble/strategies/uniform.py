"""Uniform Weights: ELREA's experts and the base adapter, all with weight 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

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
class Uniform(Rated, Strategy):
    """Σ_m logits_m over base adapter and experts: ELREA without routing."""

    rate: float = 1.0
    """The experts' highest learning rate, as a multiple of training.expert_learning_rate."""
    added_fields: ClassVar[tuple[str, ...]] = ("rate",)
    routed: ClassVar[bool] = False

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster", self.rate)

    def members(self, routing: Routing) -> list[str]:
        return [BASE, *expert_names(routing.clusters, "cluster", self.rate)]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1 + routing.clusters)
