"""Steered: one adapter for all clusters, whose low-rank space each cluster steers by factors of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from elrea.errors import ConfigError
from elrea.method.ensemble.layerwise import Factors, mixed_outputs
from elrea.method.ensemble.strategies.source import source_weights
from elrea.method.ensemble.strategy import (
    STEERED,
    AdapterSpec,
    Layerwise,
    Rated,
    Regrouped,
    Setting,
)
from elrea.method.features.base import Features
from elrea.method.features.gradient import GradientFeatures
from elrea.models.training.steering import Steering, member_names

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing

RATES = {"full": 3.0, "diagonal": 6.0}
"""Default learning rate of the factors, as a multiple of A's and B's."""


@dataclass(frozen=True)
class ClustersFrom:
    """What the clusters of a strategy are made from, where it is not the run's features at all checkpoints."""

    epochs: int | None = 1
    """Epochs of a base adapter that is trained for the features alone, with a schedule of its own; 0: the features are
    taken at the adapter's start, without any training; null: the run's base adapter. Features that need no base adapter
    (tokens, embedding) ignore it."""
    checkpoints: int | None = None
    """Take gradients at the last so many of its epochs' checkpoints; null: at all."""
    features: Features | None = None
    """Features to cluster and to route by; null: the run's."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 0:
            raise ConfigError(f"clusters_from.epochs={self.epochs}: must be 0 or more, or null")
        most = self.epochs or None
        if self.checkpoints is not None and not 1 <= self.checkpoints <= (most or math.inf):
            raise ConfigError(
                f"clusters_from.checkpoints={self.checkpoints}: must be at least 1 and at most "
                "clusters_from.epochs, or null for all"
            )


@dataclass(frozen=True)
class Steered(Rated, Layerwise, Regrouped):
    """ΔW_c = (α/r)·(B M_c A + B_c A_c): A, B and all M_c are trained together from fresh, under one schedule.

    M_c starts as the identity. A batch holds rows of several clusters, each of which passes through its own cluster's
    factors. M_c folds into B, so that every cluster has a plain LoRA adapter, and a prompt needs one pass.
    """

    factors: Literal["full", "diagonal"] = "full"
    """M_c is a full matrix [r, r], or diagonal: then a cluster scales the components of the low-rank space."""
    clusters: Literal["found", "random", "source"] = "found"
    """Who steers: the clusters of the features; as a control, random ones of the same sizes, routed like those; or the
    examples' sources, where every prompt's source is known."""
    clusters_from: ClustersFrom | None = None
    """What the clusters are made from; null: the run's features at the run's base adapter."""
    soft: bool = False
    """Route by Σ_c w_c M_c with the weights of (5.9), instead of by the factors of the nearest cluster."""
    rank: int | None = None
    """Rank r of A and B; null: C times (adapter.r - added), so that it has as many parameters as C experts, and the
    factors. 0, with `added`: experts alone."""
    added: int = 0
    """Rank of an expert of each cluster's own, A_c and B_c, that is trained beside A and B."""
    rate: float = 0.35
    """The highest learning rate of A and B, as a multiple of training.learning_rate."""
    factor_rate: float | None = None
    """The learning rate of the factors, as a multiple of that of A and B; null: 3 for full, 6 for diagonal factors. 0
    keeps them at the identity: one plain adapter for all."""
    epochs: int | None = None
    """Passes over all examples; null: those of base adapter and experts together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor_rate is not None and not 0 <= self.factor_rate < math.inf:
            raise ConfigError(f"factor_rate={self.factor_rate}: must be 0 or more, and finite")
        for name in ("rank", "added", "epochs"):
            least, value = int(name == "epochs"), getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value}: must be at least {least}")
        if self.rank == 0 and not self.added:
            raise ConfigError("rank=0: nothing would be trained; give added, the rank of experts")
        if self.soft and self.clusters == "source":
            raise ConfigError(
                "soft=true: weighs clusters by a prompt's features, which clusters=source does without; say soft=false"
            )

    @property
    def routed(self) -> bool:
        """Sources need no routing."""
        return self.clusters != "source"

    @property
    def by_source(self) -> bool:
        return not self.routed

    def grouped_by(self, features: Features, epochs: int) -> tuple[Features, int]:
        own = self.clusters_from
        if own is None or not self.routed:
            return features, epochs
        given = features if own.features is None else own.features
        found = epochs if own.epochs is None or not given.from_base else own.epochs
        # Weights of the run's checkpoints say nothing about those of another training.
        others = own.features is None and found != epochs
        if isinstance(given, GradientFeatures) and (own.checkpoints or others):
            count = max(1, found)
            last = min(own.checkpoints or count, count)
            weights = [0.0] * (count - last) + [1.0] * last
            given = replace(given, epoch_weights=weights if last < count else None)
        return given, found

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        lora, training = setting.lora, setting.training
        steering = self._steering(setting)
        epochs = self.epochs or training.epochs + training.expert_epochs
        rate = self.rate * training.learning_rate
        shape = lora.of_rank(steering.rank)
        return {
            STEERED: AdapterSpec(shape, epochs, rate, "all", from_base=False, steering=steering)
        }

    def _steering(self, setting: Setting) -> Steering:
        """The settings of the training.

        Raises:
            ConfigError: `added` leaves no rank.
        """
        count = setting.clusters if self.clusters != "source" else max(1, len(setting.sources))
        trunk = self.rank
        if trunk is None:
            trunk = count * (setting.lora.r - self.added)
            if trunk < 0:
                raise ConfigError(
                    f"added={self.added}: above adapter.r={setting.lora.r}, with whose number of parameters it is "
                    "compared; lower it, or give rank"
                )
        rate = RATES[self.factors] if self.factor_rate is None else self.factor_rate
        return Steering(self.factors, rate, count, self.clusters, trunk, self.added)

    def members(self, routing: Routing) -> list[str]:
        return member_names(self._count(routing))

    def _count(self, routing: Routing) -> int:
        return routing.clusters if self.routed else max(1, len(routing.trained))

    def weights(self, routing: Routing) -> Tensor:
        """w_c of (5.9); 1 for the nearest cluster and 0 for the others if routing is hard."""
        if not self.routed:
            return source_weights(routing, "steered with clusters=source")
        weights = routing.experts()
        return weights if self.soft else one_hot(weights.argmax(1), routing.clusters).to(weights)

    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        """(α/r)·B (Σ_c w_c M_c) A x, for members that share A; with experts, (α/r)·Σ_c w_c B_c A_c x."""
        if self.added:
            return mixed_outputs(x, factors, factors.weights[:, None])
        b = torch.einsum("bm,mor->bor", factors.weights, factors.b)
        return x @ factors.a[0].T @ b.transpose(1, 2)
