"""One adapter with the compute of ELREA, or with its compute and its number of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.method.ensemble.strategy import AdapterSpec, Rated, Setting, Strategy

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Matched(Rated, Strategy):
    """A fresh adapter trained on all examples for the epochs of base adapter and experts together."""

    rank_times_clusters: bool = False
    """Use rank C·r, with as many parameters as all experts together (parameter-matched)."""
    rate: float = 1.0
    """The highest learning rate, as a multiple of training.learning_rate."""
    routed: ClassVar[bool] = False

    @property
    def _name(self) -> str:
        return "parameter-matched" if self.rank_times_clusters else "compute-matched"

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        lora, training = setting.lora, setting.training
        if self.rank_times_clusters:
            rank = lora.r * setting.clusters
            lora = lora.of_rank(rank)
        epochs = training.epochs + training.expert_epochs
        rate = self.rate * training.learning_rate
        return {self._name: AdapterSpec(lora, epochs, rate, "all", from_base=False)}

    def members(self, routing: Routing) -> list[str]:
        return [self._name]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1)
