"""The base adapter trained further on all examples for the experts' epochs: more training without clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.method.ensemble.strategy import AdapterSpec, Rated, Setting, Strategy

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing

MEMBER = "continued"


@dataclass(frozen=True)
class Continued(Rated, Strategy):
    """One adapter with as many steps as all experts together, from the same start: C = 1, without routing.

    `Matched` uses the same compute, but starts from a fresh adapter with one learning-rate schedule over all steps.
    """

    rate: float = 1.0
    """The highest learning rate, as a multiple of training.expert_learning_rate."""
    routed: ClassVar[bool] = False

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        training = setting.training
        rate = self.rate * training.expert_learning_rate
        return {MEMBER: AdapterSpec(setting.lora, training.expert_epochs, rate, "all")}

    def members(self, routing: Routing) -> list[str]:
        return [MEMBER]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1)
