"""One adapter with the compute of ELREA, or with its compute and its number of parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import AdapterSpec, ByCluster, Rated, Setting, Strategy

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing
    from elrea.models.adapter_shape import Lora


@dataclass(frozen=True)
class Matched(Rated, Strategy):
    """A fresh adapter trained on all examples for the epochs of base adapter and experts together.

    Epochs: E + E_expert with `count=steps`; with `count=passes` E + E_expert + ⌈F / 2⌉, where F is the number of passes
    over each training prompt that the run's features take (a backward pass counts as one). Gradients of K checkpoints
    take F = 2K passes, so K more epochs; hidden states F = 1, so one more; counts of tokens none.

    Scale of the update with rank R = C·r, where the base adapter's is s (α/r, or α/√r with adapter.rslora):
    s as it is, i.e. the paper's α = 4·R over R; or, with `rslora=true`, rank-stabilised (Kalajdzievski 2023):
    α'/√R with α' = s·√r, so that the scale would be the base adapter's at its own rank, and is s/√C here.
    """

    rank_times_clusters: bool = False
    """Use rank C·r, with as many parameters as all experts together (parameter-matched)."""
    rate: float = 1.0
    """The highest learning rate, as a multiple of training.learning_rate."""
    count: Literal["steps", "passes"] = "steps"
    """What the epochs make up for: ELREA's optimiser steps, or its passes over the features' prompts too."""
    rslora: bool | None = None
    """Scale of the rank C·r. true: rank-stabilised, s/√C; false: the base adapter's s, as α/R; null: s, in the form of
    adapter.rslora."""
    added_fields: ClassVar[tuple[str, ...]] = ("count", "rslora")
    names: ClassVar[tuple[str, str]] = ("parameter-matched", "compute-matched")
    """Of its member: with rank C·r, and with rank r."""
    by_cluster: ClassVar[ByCluster | None] = None
    """How the training uses the examples' clusters (`AdapterSpec`)."""
    routed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count not in ("steps", "passes"):
            raise ConfigError(f"count={self.count}: must be steps or passes")
        if self.rslora is not None and not self.rank_times_clusters:
            raise ConfigError(
                f"rslora={str(self.rslora).lower()}: says how the rank C·r is scaled; set rank_times_clusters=true"
            )

    @property
    def _name(self) -> str:
        name = self.names[0] if self.rank_times_clusters else self.names[1]
        form = {None: "", True: "-rslora", False: "-plain"}[self.rslora]
        return name + form + "-passes" * (self.count == "passes")

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        training = setting.training
        epochs = training.epochs + training.expert_epochs
        if self.count == "passes" and setting.features is not None:
            epochs += math.ceil(setting.features.passes(training.epochs) / 2)
        rate = self.rate * training.learning_rate
        lora, by_cluster = self._lora(setting), self.by_cluster
        spec = AdapterSpec(lora, epochs, rate, "all", from_base=False, by_cluster=by_cluster)
        return {self._name: spec}

    def _lora(self, setting: Setting) -> Lora:
        lora = setting.lora
        if not self.rank_times_clusters:
            return lora
        rank = lora.r * setting.clusters
        if self.rslora is None:
            return lora.of_rank(rank)
        if self.rslora:
            return replace(lora, r=rank, alpha=lora.scale * math.sqrt(lora.r), rslora=True)
        return replace(lora, r=rank, alpha=lora.scale * rank, rslora=False)

    def members(self, routing: Routing) -> list[str]:
        return [self._name]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1)
