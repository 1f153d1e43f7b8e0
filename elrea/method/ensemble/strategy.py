"""Base classes of all strategies: which adapters are trained, and how they are combined for a prompt."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from elrea.errors import ConfigError
from elrea.method.features.base import (
    Features,  # config classes inherit an annotation with it
)
from elrea.models.adapter_shape import Lora
from elrea.models.seeds import seed_of
from elrea.models.training.settings import Training
from elrea.models.training.steering import Steering

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.method.ensemble.dev_gate import ClusterDecision
    from elrea.method.ensemble.joint import Adapter
    from elrea.method.ensemble.layerwise import Factors
    from elrea.method.routing.weights import Routing

ByCluster = Literal["balance", "project", "tag"]

BACKBONE, BASE = "backbone", "base"
"""Members that every run has, the backbone without adapter and the base adapter; and the strategies of each alone, of
which the base adapter's is always scored: the results show each strategy's difference to it."""

STEERED = "steered"
"""The adapter that clusters steer: trained once, with a member for each cluster."""


@dataclass(frozen=True)
class AdapterSpec:
    """How one adapter beside the base adapter is trained.

    Attributes:
        lora: Shape of the adapter.
        epochs: Passes over its examples.
        learning_rate: The highest learning rate.
        examples: Which training examples: all, one cluster's, those of a random cluster of the same size, or one
            source's.
        cluster: Number of the cluster, for `cluster` and `random`.
        from_base: Start from the finished base adapter instead of a fresh one.
        draw: Number of the seed, of several that are derived from the run's; 0 is the run's own.
        source: The source, for `source`.
        by_cluster: How an adapter of all examples uses their clusters: `balance` draws each cluster as often,
            `project` projects the clusters' gradients of a step where they conflict, `tag` writes the cluster before
            the instruction.
        tag: What is written for `tag`, with {} for the cluster's number.
        steering: How clusters steer it; None for a plain adapter.
    """

    lora: Lora
    epochs: int
    learning_rate: float
    examples: Literal["all", "cluster", "random", "source"]
    cluster: int | None = None
    from_base: bool = True
    draw: int = 0
    source: str | None = None
    by_cluster: ByCluster | None = None
    tag: str = ""
    steering: Steering | None = None

    @property
    def stops_early(self) -> bool:
        """Whether training.early_stop acts: on trainings whose epochs see all examples as dev has them."""
        plain = self.by_cluster in (None, "project") and self.steering is None
        return self.examples == "all" and plain

    @property
    def clustered(self) -> bool:
        """Whether its training reads the clusters."""
        steered = self.steering is not None and self.steering.by != "source"
        return steered or self.cluster is not None or self.by_cluster is not None

    def seed(self, of_run: int) -> int:
        """Seed of its initial A, of the data's order and of dropout."""
        return seed_of(of_run, self.draw) if self.draw else of_run


@dataclass(frozen=True)
class Setting:
    """The facts of a run from which a strategy derives its adapters.

    Attributes:
        lora: The base adapter's shape.
        training: How base adapter and experts are trained.
        clusters: C.
        sources: Sources of the training examples, sorted.
        features: What the training prompts are clustered by; None where nobody asks what they cost.
    """

    lora: Lora
    training: Training
    clusters: int
    sources: Sequence[str] = ()
    features: Features | None = None


class Strategy(ABC):
    """One row of the result tables: which adapters are trained, and how much each weighs for a prompt.

    A new strategy is a frozen dataclass that derives from this class, in a file of elrea/method/ensemble/strategies,
    and a YAML file in conf/ensemble. One that needs more than a mix of logits (5.10) derives from one of the classes
    below as well.

    Attributes:
        added_fields: Fields that the class has had since a later version than its first, with defaults that change
            nothing; at these they are left out of stages' keys.
    """

    added_fields: ClassVar[tuple[str, ...]] = ()

    @property
    def exported(self) -> bool:
        """Whether the run's ensemble/ answers by it, if `ensemble=` names it, instead of by ELREA's weights."""
        return False

    @property
    def routed(self) -> bool:
        """Whether its weights depend on the prompt's cosines with the clusters."""
        return False

    @property
    def by_source(self) -> bool:
        """Whether a prompt is answered by the adapter of its source, which has to have training examples."""
        return False

    @property
    def label(self) -> str:
        """What tables call it instead of its choice's name; empty: that name."""
        return ""

    @property
    def card(self) -> str:
        """How members are used, in a sentence for the README of an exported ensemble."""
        return ""

    @abstractmethod
    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        """The adapters to train, by member name; strategies that use the same name share the adapter."""

    @abstractmethod
    def members(self, routing: Routing) -> list[str]:
        """The members that it mixes, in the order of its weights' columns."""

    @abstractmethod
    def weights(self, routing: Routing) -> Tensor:
        """Weights of its members for each prompt [n, members]."""


class Rated:
    """Mixin for strategies with a learning-rate factor: rejects one that is not positive and finite."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"rate={self.rate}: must be above 0, and finite")


class Layerwise(Strategy):
    """A strategy that mixes its members inside the layers: one pass per prompt for any number of members."""

    def check(self, members: Sequence[Adapter | None]) -> None:
        """Rejects members that cannot be mixed in this way.

        Raises:
            ConfigError: Which, and why.
        """
        return

    def gate_of(self, a: Tensor, b: Tensor) -> Tensor | None:
        """A layer's `Factors.gate` [members, in], where it follows from the members' factors.

        Args:
            a: A of every member [members, r, in].
            b: (α/r)·B of every member [members, out, r].
        """
        return None

    @abstractmethod
    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        """The addition to an adapted layer's output [rows, t, out], for the layer's input x [rows, t, in]."""


class TrainedGates(Layerwise):
    """A layerwise strategy whose layers have gates, which are trained while backbone and members are frozen."""

    @abstractmethod
    def gates(self, setting: Setting) -> AdapterSpec:
        """How the gates are trained: examples, epochs and learning rate."""


class Regrouped(Strategy):
    """A strategy whose clusters are made from features of its own.

    Attributes:
        features: Features to cluster and to route by, instead of the run's.
        clustering: A `Clustering` instead of the run's; None: that.
        router: A `Router` instead of the run's; None: that, by these features.
    """

    features: Features
    clustering: Any = None
    router: Any = None

    def grouped_by(self, features: Features, epochs: int) -> tuple[Features, int]:
        """Its features, and the epochs of the base adapter that they are taken with.

        Args:
            features: The run's.
            epochs: The run's.
        """
        return self.features, epochs


class DevGated(Strategy):
    """A strategy whose first member, the trunk, answers unless dev examples say that the nearest expert is better.

    Its members are the trunk and an expert per cluster.
    """

    @property
    @abstractmethod
    def undecided(self) -> bool:
        """Whether dev examples decide."""

    @abstractmethod
    def verdicts(self, differences: Sequence[Sequence[float]]) -> list[ClusterDecision]:
        """What dev says of each cluster.

        Args:
            differences: For each cluster, how much better its expert is than the trunk on each dev example that is
                nearest to it.
        """

    @abstractmethod
    def serving(self, clusters: Sequence[int]) -> Self:
        """The same strategy, decided: the experts of these clusters serve."""


Gated, Deciding = TrainedGates, DevGated
"""The old names of these bases, for plugins; version 0.3 removes them."""


class Tagging(Strategy):
    """A strategy whose prompts name the nearest cluster before the instruction.

    Attributes:
        tag: What is written, with {} for the cluster's number.
    """

    tag: str


class Picking(Strategy):
    """A strategy that selects one member's answer per prompt after all members have answered."""

    @abstractmethod
    def pick(self, correct: Tensor, sources: Sequence[str]) -> Tensor:
        """The selected member of each prompt [n].

        Args:
            correct: Whether each member answered each prompt correctly [members, n].
            sources: Source of each prompt [n].
        """


class Voting(Strategy):
    """A strategy that draws several answers and takes the most frequent one.

    If choices are scored by likelihood, answers are drawn from the choices' probabilities (`vote`); if texts are
    generated, whole texts are drawn.

    Attributes:
        samples: Texts drawn for each prompt.
        temperature: Divides the mixed logits before each token is drawn.
        seed: Seed of the draws.
    """

    samples: int
    temperature: float
    seed: int

    @abstractmethod
    def vote(self, log_probs: Sequence[float], number: int) -> int:
        """The choice for prompt `number`, from log P of each choice."""


def experts(
    setting: Setting, examples: Literal["cluster", "random"], rate: float = 1.0
) -> dict[str, AdapterSpec]:
    """One expert per cluster (step 4), trained from the finished base adapter on that cluster's examples alone.

    Args:
        setting: Facts of the run.
        examples: `cluster` for the clusters of the features, `random` for random ones of the same sizes.
        rate: Factor on training.expert_learning_rate.
    """
    training = setting.training
    names = expert_names(setting.clusters, examples, rate)
    return {
        name: AdapterSpec(
            setting.lora,
            training.expert_epochs,
            rate * training.expert_learning_rate,
            examples,
            cluster,
        )
        for cluster, name in enumerate(names)
    }


def trained_as(member: str) -> str:
    """Name of the adapter by whose training a member is made: its own, or that which clusters steer."""
    return STEERED if re.fullmatch(rf"{STEERED}-\d+", member) else member


def expert_names(clusters: int, examples: str = "cluster", rate: float = 1.0) -> list[str]:
    """Member names of the experts: `expert-0` ..., or `random-0` ... for random clusters.

    Experts of another rate than 1 have other names, as `expert-x0.5-0`, so that rows with different rates can be in one
    run. Those of random clusters have one rate in a run.
    """
    prefix = "expert" if examples == "cluster" else examples
    if prefix == "expert" and rate != 1:
        prefix += f"-x{float(rate)!r}"
    return [f"{prefix}-{cluster}" for cluster in range(clusters)]
