"""MoLE (D.2): a trained gate in every adapted layer weights the members token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.layerwise import Factors, mixed_outputs
from elrea.method.ensemble.strategy import (
    BASE,
    AdapterSpec,
    Rated,
    Setting,
    TrainedGates,
    expert_names,
    experts,
)

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Mole(Rated, TrainedGates):
    """(α/r)·Σ_c λ_c(x) B_c A_c x in each layer, with λ(x) = softmax(W x) (D.2); base adapter and experts are frozen.

    W starts at 0, with all members alike, and is trained on all examples without a balancing loss. The paper gives
    neither the gate's input nor its form; a linear map of the layer's input is this project's choice.
    """

    epochs: int = 1
    """Passes over all training examples: 1 in the paper."""
    rate: float = 1.0
    """The gates' highest learning rate, as a multiple of training.expert_learning_rate (2e-5 for both in the paper)."""
    routed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1:
            raise ConfigError(f"epochs={self.epochs}: must be at least 1")

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster")

    def gates(self, setting: Setting) -> AdapterSpec:
        """How the gates are trained: on all examples, at a multiple of the experts' learning rate."""
        rate = self.rate * setting.training.expert_learning_rate
        return AdapterSpec(setting.lora, self.epochs, rate, "all")

    def members(self, routing: Routing) -> list[str]:
        return [BASE, *expert_names(routing.clusters)]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1 + routing.clusters)

    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        assert factors.gate is not None
        return mixed_outputs(x, factors, torch.softmax(x @ factors.gate.T, dim=-1))
