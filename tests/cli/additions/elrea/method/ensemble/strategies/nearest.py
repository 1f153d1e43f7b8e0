"""The base adapter and the nearest cluster's expert, half each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

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
class Nearest(Strategy):
    """(logits_base + logits_c)/2, c the cluster with the highest cosine."""

    routed: ClassVar[bool] = True

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster")

    def members(self, routing: Routing) -> list[str]:
        return [BASE, *expert_names(routing.clusters)]

    def weights(self, routing: Routing) -> Tensor:
        nearest = one_hot(routing.cosines.argmax(dim=1), routing.clusters).float()
        return torch.cat([torch.ones(len(nearest), 1), nearest], dim=1) / 2
