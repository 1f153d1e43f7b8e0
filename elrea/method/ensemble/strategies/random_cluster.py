"""Random Cluster: as many experts as ELREA's, trained on random clusters of the same sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
class RandomCluster(Rated, Strategy):
    """The control for ensembling without meaningful clusters; all weights are 1 in the paper."""

    weighted: bool = False
    """Use ELREA's weights, including w_base, instead of 1."""
    rate: float = 1.0
    """The experts' highest learning rate, as a multiple of training.expert_learning_rate."""

    @property
    def routed(self) -> bool:
        """Only the weighted form needs the prompt's gradient."""
        return self.weighted

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "random", self.rate)

    def members(self, routing: Routing) -> list[str]:
        return [BASE, *expert_names(routing.clusters, "random")]

    def weights(self, routing: Routing) -> Tensor:
        if not self.weighted:
            return torch.ones(len(routing.cosines), 1 + routing.clusters)
        return torch.cat([routing.base[:, None], routing.experts()], dim=1)
