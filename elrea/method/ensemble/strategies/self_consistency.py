"""Self-Consistency: several answers of the base adapter are drawn, and the most frequent one counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import BASE, AdapterSpec, Setting, Voting
from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class SelfConsistency(Voting):
    """A majority vote over several answers that are drawn.

    The paper draws whole texts and reads the answer out of each, as `evaluation.by=generation` does here; of texts
    without an answer none counts. Where choices are judged by likelihood, an answer is drawn from
    P(choice)^(1/temperature), renormalised over the choices: one pass tells these, so that the draws cost nothing.
    """

    samples: int = 5
    """Answers drawn for each prompt. The paper's is 5."""
    temperature: float = 1.0
    """Divides the logits, or the choices' log-probabilities, before drawing. The paper's is 1."""
    seed: int = 0
    """Of the draws."""
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
        """The choice that most draws fall on; of equals the one drawn first.

        Args:
            log_probs: log P of each choice.
            number: Of the prompt: every prompt has draws of its own.
        """
        logs = torch.tensor(log_probs).double()
        logs -= logs.max()  # else what is divided by little overflows
        shares = torch.softmax(logs / self.temperature, dim=0).tolist()
        draw = Random(f"self-consistency/{self.seed}/{number}")
        drawn = draw.choices(range(len(shares)), weights=shares, k=self.samples)
        return Counter(drawn).most_common(1)[0][0]
