"""Self-Consistency: several answers of the base adapter are drawn, and the most frequent one is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import BASE, AdapterSpec, Setting, Voting

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class SelfConsistency(Voting):
    """A majority vote over several drawn answers.

    The paper draws whole texts and reads an answer from each, as `evaluation.by=generation` does here; texts without an
    answer have no vote. If choices are scored by likelihood, answers are drawn from P(choice)^(1/temperature),
    normalised over the choices: one pass computes these, so that draws cost nothing.
    """

    samples: int = 5
    """Number of answers drawn for each prompt. The paper's is 5."""
    temperature: float = 1.0
    """Divides the logits, or the choices' log-probabilities, before a draw. The paper's is 1."""
    seed: int = 0
    """Seed of the draws."""
    routed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"samples={self.samples}: must be at least 1")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature}: must be above 0 and finite")

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return {}

    def members(self, routing: Routing) -> list[str]:
        return [BASE]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1)

    def vote(self, log_probs: Sequence[float], number: int) -> int:
        """The most frequently drawn choice; of equally frequent ones, the one drawn first.

        Args:
            log_probs: log P of each choice.
            number: Number of the prompt; every prompt has its own draws.
        """
        logs = torch.tensor(log_probs).double()
        logs -= logs.max()  # division by a small temperature would overflow
        shares = torch.softmax(logs / self.temperature, dim=0).tolist()
        draw = Random(f"self-consistency/{self.seed}/{number}")
        drawn = draw.choices(range(len(shares)), weights=shares, k=self.samples)
        return Counter(drawn).most_common(1)[0][0]
