"""Which of two numbers is larger: a source that is made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import ClassVar

from elrea.data.corpus import Corpus
from elrea.data.examples import Example


@dataclass
class Larger:
    """Questions about numbers below 20, in figures and in capitals."""

    train: int = 32
    test: int = 6
    seed: int = 0
    name: ClassVar[str] = "larger"

    def load(self) -> Corpus:
        """Draws the questions; no pair is asked twice."""
        pairs = list(combinations(range(20), 2))
        Random(self.seed).shuffle(pairs)
        examples = [self._example(i, *pair) for i, pair in enumerate(pairs)]
        end = self.train + self.test
        return Corpus(
            self.name, tuple(examples[: self.train]), (), tuple(examples[self.train : end])
        )

    def _example(self, number: int, a: int, b: int) -> Example:
        words = f"Which is larger, {a} or {b}?"
        source = "shouted" if number % 2 else "said"
        return Example(
            f"larger/{number}",
            words.upper() if number % 2 else words,
            str(max(a, b)),
            source,
            judge="first_word",
        )
