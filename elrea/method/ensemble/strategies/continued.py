"""The base adapter trained on for the experts' epochs, on all examples: more training, without any cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elrea.method.ensemble.strategy import AdapterSpec, Rated, Setting, Strategy
from elrea.method.routing.weights import Routing

MEMBER = "continued"


@dataclass(frozen=True)
class Continued(Rated, Strategy):
    """One adapter that takes the very steps of all experts, from where they begin: C = 1, without routing.

    A compute-matched base like `Matched`, which starts anew and lets its rate fall once, over all steps.
    """

    rate: float = 1.0
    """Its highest learning rate, as a multiple of training.expert_learning_rate."""
    routed: ClassVar[bool] = False

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        training = setting.training
        rate = self.rate * training.expert_learning_rate
        return {MEMBER: AdapterSpec(setting.lora, training.expert_epochs, rate, "all")}

    def members(self, routing: Routing) -> list[str]:
        return [MEMBER]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1)
