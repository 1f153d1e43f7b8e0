"""What a strategy is: which adapters it needs, and how much each weighs for a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.layerwise import Factors
from elrea.method.features.protocol import Features
from elrea.method.routing.weights import Routing
from elrea.models.lora import Lora
from elrea.models.seeds import seed_of
from elrea.models.training.settings import Training

BACKBONE, BASE = "backbone", "base"
"""Members that every run has: the bare backbone, and the base adapter."""


@dataclass(frozen=True)
class AdapterSpec:
    """One adapter to train beside the base adapter.

    Attributes:
        lora: Its shape.
        epochs: Passes over its examples.
        learning_rate: The highest.
        examples: All training examples, a cluster's, a random cluster's of the same size, or a source's.
        cluster: Which cluster, where they are a cluster's.
        from_base: Start from the final base adapter rather than fresh.
        draw: Which of several seeds that follow from the run's; 0 is the run's own.
        source: Which source, where they are a source's.
    """

    lora: Lora
    epochs: int
    learning_rate: float
    examples: Literal["all", "cluster", "random", "source"]
    cluster: int | None = None
    from_base: bool = True
    draw: int = 0
    source: str | None = None

    def seed(self, of_run: int) -> int:
        """The seed of its first A, of the data's order and of dropout."""
        return seed_of(of_run, self.draw) if self.draw else of_run


@dataclass(frozen=True)
class Setting:
    """What a strategy may look at to say which adapters it needs.

    Attributes:
        lora: The base adapter's shape.
        training: How base adapter and experts are trained.
        clusters: C.
        sources: Of the training examples, in the order of the alphabet.
    """

    lora: Lora
    training: Training
    clusters: int
    sources: Sequence[str] = ()


class Strategy(Protocol):
    """One row of the tables. A new one is one file here and one in conf/ensemble/."""

    @property
    def routed(self) -> bool:
        """Whether its weights need the prompt's gradient."""
        ...

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        """The adapters it needs trained, by member name; strategies that name one alike share it."""
        ...

    def members(self, routing: Routing) -> list[str]:
        """The members that it mixes, in the order of its weights' columns."""
        ...

    def weights(self, routing: Routing) -> Tensor:
        """Weights of its members for each prompt [n, members]."""
        ...


class Rated:
    """What is trained at a rate of its own refuses one that cannot train."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"rate={self.rate}: must be above 0, and finite")


@runtime_checkable
class Layerwise(Strategy, Protocol):
    """A strategy that mixes its members inside the layers: one pass per prompt, whatever their number."""

    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        """What an adapted layer adds to its output [rows, t, out] for its input x [rows, t, in]."""
        ...


@runtime_checkable
class Gated(Layerwise, Protocol):
    """A layerwise strategy whose layers have gates, trained while backbone and members stay."""

    def gates(self, setting: Setting) -> AdapterSpec:
        """How the gates are trained: on which examples, for how long, how fast."""
        ...


@runtime_checkable
class Regrouped(Strategy, Protocol):
    """A strategy whose clusters come from features of its own instead of the run's."""

    @property
    def features(self) -> Features:
        """What is clustered, and what a prompt is routed by."""
        ...


@runtime_checkable
class Picking(Strategy, Protocol):
    """A strategy that lets one member answer each prompt, once all have answered."""

    def pick(self, correct: Tensor, sources: Sequence[str]) -> Tensor:
        """The member that counts for each prompt [n], by who was right [members, n] and the prompts' sources."""
        ...


@runtime_checkable
class Voting(Strategy, Protocol):
    """A strategy that draws several answers and lets the most frequent one count.

    Of given choices, their probabilities say what is drawn (`vote`); where texts are written, whole texts are.
    """

    @property
    def samples(self) -> int:
        """Texts drawn for each prompt."""
        ...

    @property
    def temperature(self) -> float:
        """Divides the mixed logits before each token is drawn."""
        ...

    @property
    def seed(self) -> int:
        """Of the draws."""
        ...

    def vote(self, log_probs: Sequence[float], number: int) -> int:
        """The choice for prompt `number`, by log P of each choice."""
        ...


def experts(
    setting: Setting, examples: Literal["cluster", "random"], rate: float = 1.0
) -> dict[str, AdapterSpec]:
    """One expert per cluster (step 4): from the final base adapter, on that cluster's examples alone.

    Args:
        setting: How experts are trained, and how many there are.
        examples: Whether the clusters are those of the gradients or random ones.
        rate: Factor on training.expert_learning_rate.
    """
    training = setting.training
    return {
        name: AdapterSpec(
            setting.lora,
            training.expert_epochs,
            rate * training.expert_learning_rate,
            examples,
            cluster,
        )
        for cluster, name in enumerate(expert_names(setting.clusters, examples))
    }


def expert_names(clusters: int, examples: str = "cluster") -> list[str]:
    """Member names: `expert-0` ... of the clusters, `random-0` ... of the random ones."""
    prefix = "expert" if examples == "cluster" else examples
    return [f"{prefix}-{cluster}" for cluster in range(clusters)]
