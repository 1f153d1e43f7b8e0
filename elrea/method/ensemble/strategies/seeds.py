"""LoRA Ensembles: mean logits of the base adapter and of adapters trained like it with other seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import BASE, AdapterSpec, Rated, Setting, Strategy

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class SeedEnsemble(Rated, Strategy):
    """(1/n) Σ_i logits_i over n adapters of n seeds, trained on all data: ensembling without clusters."""

    size: int | None = 4
    """n, including the base adapter. The paper's is 4; null: C + 1, as many members as ELREA has."""
    rate: float = 1.0
    """The highest learning rate of the other adapters, as a multiple of training.learning_rate."""
    routed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and self.size < 2:
            raise ConfigError(f"size={self.size}: must be at least 2, or null for C + 1")

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        training = setting.training
        rate = self.rate * training.learning_rate
        names = self._names(setting.clusters)[1:]
        return {
            name: AdapterSpec(
                setting.lora, training.epochs, rate, "all", from_base=False, draw=draw
            )
            for draw, name in enumerate(names, 1)
        }

    def members(self, routing: Routing) -> list[str]:
        return self._names(routing.clusters)

    def _names(self, clusters: int) -> list[str]:
        others = clusters if self.size is None else self.size - 1
        return [BASE, *(f"seed-{draw}" for draw in range(1, others + 1))]

    def weights(self, routing: Routing) -> Tensor:
        size = len(self.members(routing))
        return torch.full((len(routing.cosines), size), 1 / size)
