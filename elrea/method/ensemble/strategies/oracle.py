"""The oracle: each test source is answered by the expert that happens to be best at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elrea.method.ensemble.strategy import AdapterSpec, Picking, Setting, expert_names, experts
from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Oracle(Picking):
    """argmax_c of expert c's accuracy on all test prompts of a source: what choosing one expert per source could give.

    It looks at the answers, so it is no method but a bound; with few prompts to a source it flatters itself.
    """

    routed: ClassVar[bool] = False

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster")

    def members(self, routing: Routing) -> list[str]:
        return expert_names(routing.clusters)

    def weights(self, routing: Routing) -> Tensor:
        """1 for all: every expert has to answer before the best is known."""
        return torch.ones(len(routing.cosines), routing.clusters)

    def pick(self, correct: Tensor, sources: Sequence[str]) -> Tensor:
        """The member that answers each prompt [n]; of equals the first.

        Args:
            correct: Whether each member has each prompt right [members, n].
            sources: Of the prompts [n].
        """
        names = sorted(set(sources))
        of = torch.tensor([names.index(source) for source in sources])
        right = torch.zeros(len(names), len(correct)).index_add_(0, of, correct.T.float())
        return right.argmax(dim=1)[of]
