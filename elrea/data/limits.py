"""What a source lets a user limit, and the seed that draws by it; exam.py makes its questions and has its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from elrea.data.parts import Parts
from elrea.data.sampling import subset


@dataclass(kw_only=True)
class Limited:
    """At most so many examples, and whether test questions may stand in train."""

    limit_train: int | None = None
    """At most so many training examples, drawn by `seed`; None takes all."""
    limit_test: int | None = None
    """At most so many test examples, drawn by `seed`; None takes all."""
    seed: int = 0
    """Of all that is drawn. Not the run's seed: runs of several seeds are scored on the same questions."""
    allow_overlap: bool = False
    """Let test questions stand in train. Off: scores on questions seen in training say little."""

    expected: list[int] | None = None
    """How many examples there are to train and to test, for plan=true where they would have to be fetched first."""

    def limited(self, parts: Parts) -> Parts:
        """At most `limit_train` and `limit_test` of it.

        Raises:
            ConfigError: a limit is below 1.
        """
        return replace(
            parts,
            train=subset(parts.train, self.limit_train, self.seed, "train"),
            test=subset(parts.test, self.limit_test, self.seed, "test"),
        )
