"""What a strategy is: which adapters it needs, and how much each weighs for a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from elrea.adapters.lora import Lora
from elrea.adapters.seeds import seed_of
from elrea.adapters.training import Training
from elrea.routing.weights import Routing

BACKBONE, BASE = "backbone", "base"
"""Members that every run has: the bare backbone, and the base adapter."""


@dataclass(frozen=True)
class Job:
    """One adapter to train beside the base adapter.

    Attributes:
        lora: Its shape.
        epochs: Passes over its examples.
        learning_rate: The highest.
        examples: All training examples, a cluster's, or a random cluster's of the same size.
        cluster: Which cluster; None with all examples.
        from_base: Start from the final base adapter rather than fresh.
        draw: Which of several seeds that follow from the run's; 0 is the run's own.
    """

    lora: Lora
    epochs: int
    learning_rate: float
    examples: Literal["all", "cluster", "random"]
    cluster: int | None = None
    from_base: bool = True
    draw: int = 0

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
    """

    lora: Lora
    training: Training
    clusters: int


class Strategy(Protocol):
    """One row of the tables. A new one is one file here and one in conf/ensemble/."""

    @property
    def routed(self) -> bool:
        """Whether its weights need the prompt's gradient."""
        ...

    def jobs(self, setting: Setting) -> dict[str, Job]:
        """The adapters it needs trained, by member name; strategies that name one alike share it."""
        ...

    def members(self, clusters: int) -> list[str]:
        """The members whose logits it mixes, in the order of its weights' columns."""
        ...

    def weights(self, routing: Routing) -> Tensor:
        """Weights of its members for each prompt [n, members]."""
        ...


def experts(
    setting: Setting, examples: Literal["cluster", "random"], rate: float = 1.0
) -> dict[str, Job]:
    """One expert per cluster (step 4): from the final base adapter, on that cluster's examples alone.

    Args:
        setting: How experts are trained, and how many there are.
        examples: Whether the clusters are those of the gradients or random ones.
        rate: Factor on training.expert_learning_rate.
    """
    training = setting.training
    return {
        name: Job(
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
