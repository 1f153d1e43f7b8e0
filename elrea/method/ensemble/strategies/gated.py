"""Gated experts: the nearest expert answers where dev examples say that it helps, the trunk everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from elrea.errors import ConfigError
from elrea.method.ensemble.dev_gate import ClusterDecision, decide
from elrea.method.ensemble.strategies.matched import Matched
from elrea.method.ensemble.strategy import (
    BASE,
    AdapterSpec,
    DevGated,
    Rated,
    Setting,
    expert_names,
    experts,
)

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class GatedExperts(Rated, DevGated):
    """λ = 1 for expert c if c is the nearest cluster and low_c > 0, else for the trunk: one pass per prompt.

    low_c is a lower bound of what the expert gains over the trunk on the dev examples that are nearest to its cluster,
    shrunk toward 0 by their number (`elrea.method.ensemble.dev_gate.decide` has the equation). A prompt without a
    feature has no nearest cluster, and gets the trunk.
    """

    rate: float = 1.0
    """The experts' highest learning rate, as a multiple of training.expert_learning_rate."""
    trunk: Literal["base", "wide"] = "base"
    """Who answers where no expert serves: the base adapter, or one adapter of rank C·r (`parameter_matched`)."""
    trunk_rate: float = 0.25
    """The highest learning rate of a wide trunk, as a multiple of training.learning_rate: that of parameter_matched."""
    shrinkage: float = 10.0
    """Dev examples without any difference that are added to each cluster's, k."""
    confidence: float = 0.9
    """How probable a gain must be for an expert to serve."""
    serves: list[int] | None = None
    """Numbers of the clusters whose experts serve; null: decided on dev."""
    routed: ClassVar[bool] = True
    exported: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.trunk_rate < float("inf"):
            raise ConfigError(f"trunk_rate={self.trunk_rate}: must be above 0, and finite")
        if not 0 < self.shrinkage < float("inf"):
            raise ConfigError(f"shrinkage={self.shrinkage}: must be above 0, and finite")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence={self.confidence}: must be from 0.5 to below 1")
        if any(c < 0 for c in self.serves or ()):
            raise ConfigError(f"serves={self.serves}: must be numbers of clusters, from 0")

    @property
    def _wide(self) -> Matched:
        return Matched(rank_times_clusters=True, rate=self.trunk_rate)

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        wide = self._wide.adapters(setting) if self.trunk == "wide" else {}
        return {**wide, **experts(setting, "cluster", self.rate)}

    def members(self, routing: Routing) -> list[str]:
        trunk = [BASE] if self.trunk == "base" else self._wide.members(routing)
        return [*trunk, *expert_names(routing.clusters, "cluster", self.rate)]

    def weights(self, routing: Routing) -> Tensor:
        if self.serves is None:
            raise ValueError("which experts serve is not decided yet")
        if wrong := [c for c in self.serves if c >= routing.clusters]:
            raise ConfigError(
                f"ensemble.serves: there is no cluster {wrong[0]}; there are {routing.clusters}, from 0"
            )
        nearest = routing.experts().argmax(1)
        open_ = torch.zeros(routing.clusters, dtype=torch.bool)
        open_[self.serves] = True
        chosen = torch.where(
            open_[nearest] & routing.cosines.ne(0).any(1), 1 + nearest, torch.zeros_like(nearest)
        )
        return one_hot(chosen, 1 + routing.clusters).to(routing.cosines)

    @property
    def card(self) -> str:
        each = ", ".join(map(str, sorted(self.serves or []))) or "none"
        trunk = "the base adapter" if self.trunk == "base" else "an adapter of all experts' rank"
        return (
            "The nearest cluster's expert answers a prompt if dev examples said that it helps "
            f"(clusters: {each}), and {trunk} otherwise."
        )

    @property
    def undecided(self) -> bool:
        return self.serves is None

    def verdicts(self, differences: Sequence[Sequence[float]]) -> list[ClusterDecision]:
        return decide(differences, self.shrinkage, self.confidence)

    def serving(self, clusters: Sequence[int]) -> Self:
        return replace(self, serves=list(clusters))
