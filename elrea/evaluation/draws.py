"""Which test examples a strategy generates texts for, and how many; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from elrea.method.ensemble.strategy import Strategy, Voting

if TYPE_CHECKING:
    from elrea.data.examples import Example


def indices_to_generate(examples: Sequence[Example], by: str, strategy: Strategy) -> list[int]:
    """Indices of the test examples that a strategy generates texts for; none is plain text, which asks nothing.

    Args:
        examples: The test examples.
        by: `evaluation.by`: likelihood, generation or auto.
        strategy: A voting strategy also generates for examples without choices, since it has nothing else to vote on.
    """
    if by == "likelihood":
        return []
    everything, votes = by == "generation", isinstance(strategy, Voting)
    asked = [(i, e) for i, e in enumerate(examples) if not e.plain_text]
    return [i for i, e in asked if everything or e.judge or (votes and not e.choices)]


@dataclass(frozen=True)
class Draws:
    """How texts are sampled.

    Attributes:
        samples: Texts per prompt.
        temperature: Of the softmax; 0 is greedy decoding.
        seed: Each text has its own random generator, derived from this seed, the prompt's index and the text's.
    """

    samples: int = 1
    temperature: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, strategy: Strategy) -> Draws:
        """The settings of a voting strategy; greedy decoding of one text for any other."""
        if isinstance(strategy, Voting):
            return cls(strategy.samples, strategy.temperature, strategy.seed)
        return cls()

    def seeds(self, wanted: Sequence[tuple[int, int]]) -> list[int]:
        """A seed for each pair (index of the prompt, index of the text)."""
        return [Random(f"draws/{self.seed}/{i}/{k}").getrandbits(62) for i, k in wanted]
