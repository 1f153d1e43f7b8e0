"""All that a source has, before anything is held out, limited or checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from elrea.data.examples import Example
from elrea.data.overlap.dropped import Drops


@dataclass(frozen=True)
class Parts:
    """What a source read."""

    train: tuple[Example, ...] = ()
    dev: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    """Empty where the files hold none: it is then held out of train."""
    drops: Drops = field(default_factory=Drops)
    note: str = ""
    """What a reader of the results must know of the data."""


class Readable(Protocol):
    """What a mix, or `train` of a benchmark, can take its examples from."""

    def parts(self) -> Parts:
        """Read everything."""

    def limited(self, parts: Parts) -> Parts:
        """At most as many as the settings say."""
