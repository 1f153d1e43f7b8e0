"""The oracle: each test source is answered by the expert with the highest accuracy on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.method.ensemble.strategy import (
    AdapterSpec,
    Picking,
    Rated,
    Setting,
    expert_names,
    experts,
)

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Oracle(Rated, Picking):
    """argmax_c of expert c's accuracy on all test prompts of a source: a bound for choosing one expert per source.

    It uses the right answers, so it is no method. With few prompts per source the bound is too high.
    """

    rate: float = 1.0
    """The experts' highest learning rate, as a multiple of training.expert_learning_rate."""
    added_fields: ClassVar[tuple[str, ...]] = ("rate",)
    routed: ClassVar[bool] = False

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster", self.rate)

    def members(self, routing: Routing) -> list[str]:
        return expert_names(routing.clusters, "cluster", self.rate)

    def weights(self, routing: Routing) -> Tensor:
        """All 1: every expert has to answer before the best one is known."""
        return torch.ones(len(routing.cosines), routing.clusters)

    def pick(self, correct: Tensor, sources: Sequence[str]) -> Tensor:
        """The member that answers each prompt [n]; of equally good members, the first.

        Args:
            correct: Whether each member answered each prompt correctly [members, n].
            sources: Source of each prompt [n].
        """
        names = sorted(set(sources))
        of = torch.tensor([names.index(source) for source in sources])
        right = torch.zeros(len(names), len(correct)).index_add_(0, of, correct.T.float())
        return right.argmax(dim=1)[of]
