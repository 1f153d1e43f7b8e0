"""A part of another source's training examples, such that smaller parts lie in larger ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elrea.data.sampling import nested
from elrea.errors import ConfigError

if TYPE_CHECKING:
    from elrea.data.corpus import Corpus


@dataclass(kw_only=True)
class Nested:
    """Another source with fewer training examples, for learning curves; dev and test stay whole."""

    of: Any
    """The other source: a choice of this group."""
    rows: int
    """Number of training examples, of each source in proportion; fewer rows are a part of more."""
    seed: int = 0
    """Seed of the draw."""

    @property
    def name(self) -> str:
        """The other source's."""
        return str(self.of.name)

    def load(self) -> Corpus:
        """Loads the other source and draws.

        Raises:
            ElreaError: As the other source.
            ConfigError: `rows` is not 1 to the number of training examples.
        """
        if not hasattr(self.of, "load"):
            raise ConfigError("data.of: must be a choice of data")
        corpus: Corpus = self.of.load()
        part = f"{self.rows:,} of {len(corpus.train):,} training examples"
        return replace(
            corpus,
            train=nested(corpus.train, self.rows, self.seed),
            note=", ".join(filter(None, [corpus.note, part])),
            short=f"{corpus.short}, {part}" if corpus.short else "",
        )
