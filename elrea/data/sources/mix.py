"""Several sources as one: how much of each, what of each is held out, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from elrea.data.corpus import Corpus
from elrea.data.examples import Example
from elrea.data.overlap.dropped import Drops
from elrea.data.overlap.held_out import HeldOut, Overlap, resolve_overlap
from elrea.data.parts import Parts
from elrea.data.sampling import held_out, subset
from elrea.data.sources.base import Limited, corpus_of
from elrea.errors import ConfigError, DataError, did_you_mean


@dataclass
class Mix(Limited):
    """Training and test examples of every source; its name there is the examples' `source`.

    A source without a test has `test_share` of its own questions held out. A source that is not said where to find is
    left out.
    """

    sources: dict[str, Any] = field(default_factory=dict)
    """Name -> a choice of this group. `limit_train` and `limit_test` of each cap it."""
    root: str | None = None
    """Folder with one folder for each source, by name: for those that have no place of their own. Names that are not in
    there are left out, and said."""
    hub: bool = False
    """Take those without a place from their public data sets."""
    only: list[str] | None = None
    """Names of the sources to take, each of which then has to be there; None takes those that are."""
    test_share: float | None = None
    """In place of each source's own `test_share`."""
    test_per_source: int | None = None
    """At most so many test examples of each source; None leaves it to each `limit_test`."""
    train_per_source: int | None = None
    """At most so many training examples of each source; None leaves it to each `limit_train`."""
    dev_per_source: int = 0
    """So many questions of each become dev: its own dev's, or held out of train."""
    overlap: Overlap | None = None
    """Where a question of one source's test or dev stands in train, or one of test in dev, be it another's: "refuse",
    or "drop" it there, counted. None does with a source's train and dev what its own `overlap` says."""

    name: ClassVar[str] = "mix"
    title: ClassVar[str] = "mix of"

    def load(self) -> Corpus:
        """Read all, hold out, take out what overlaps, and limit.

        Raises:
            DataError: anything wrong with a source, a source that is asked for and not there, or none at all.
            ConfigError: a name that no source has, or a number out of range.
        """
        sources, absent = self._found()
        ready: dict[str, Parts] = {}
        for name, source in sources.items():
            ready[name] = self._held(name, _named(name, source.parts()), source)
        drops = Drops()
        for parts in ready.values():
            drops.update(parts.drops)
        if not self.allow_overlap:
            held = HeldOut(_all(ready, "dev"), _all(ready, "test"))
            for name, parts in ready.items():
                mode = self.overlap or sources[name].overlap
                parts = replace(parts, drops=drops)
                ready[name] = resolve_overlap(parts, mode, f"data.sources.{name}", held)
        capped = {name: self._capped(parts, sources[name]) for name, parts in ready.items()}
        shares = ", ".join(
            f"{name} {len(parts.train):,} and {len(parts.test):,}" for name, parts in capped.items()
        )
        whole = Parts(
            _all(capped, "train"),
            _all(capped, "dev"),
            _all(capped, "test"),
            drops,
            f"{self.title} {shares} to train and test"
            + (f"; not there: {', '.join(absent)}" if absent else ""),
        )
        return corpus_of(self.name, self.limited(whole), "source")

    def parts(self) -> Parts:
        """All of every source, nothing held out: what a benchmark trains on, each source capped."""
        sources, _ = self._found()
        drops = Drops()
        train: list[Example] = []
        for name, source in sources.items():
            parts = _named(name, source.parts())
            drops.update(parts.drops)
            train += self._capped(parts, source).train
        return Parts(tuple(train), drops=drops, note=f"{self.title} {', '.join(sources)}")

    def _found(self) -> tuple[dict[str, Any], list[str]]:
        """The sources to read, each with its place and this mix's seed, and the names that are not there."""
        for name, source in self.sources.items():
            if not hasattr(source, "placed"):
                raise ConfigError(f"data.sources.{name}: this choice of data cannot be mixed")
        for name in self.only or ():
            if name not in self.sources:
                near = did_you_mean(name, self.sources)
                raise ConfigError(
                    f"data.only: no source {name!r}{near} (there is: {', '.join(self.sources)})"
                )
        found, absent = {}, []
        for name in self.only or self.sources:
            source = replace(self.sources[name], seed=self.seed)
            if not source.placed() and self.root:
                folder = Path(self.root) / name
                source = source.at(folder) if folder.exists() or self.only else source
            if not source.placed() and self.hub:
                source = source.on_hub()
            if source.placed():
                found[name] = source
            else:
                absent.append(name)
        if not found:
            raise DataError(
                f"data={self.name} has no source: say data.root=<folder with a folder for each of"
                f" {', '.join(self.sources)}>, data.hub=true, or data.sources.<name>.root for some"
            )
        return found, absent if self.root or self.only else []

    def _held(self, name: str, parts: Parts, source: Any) -> Parts:
        """With test and dev held out of train."""
        if self.test_share is not None:
            source = replace(source, test_share=self.test_share)
        parts = source.ready(parts)
        if not parts.train or not parts.test:
            raise DataError(f"data.sources.{name}: nothing to train on, or nothing to test")
        dev = parts.dev
        if self.dev_per_source and not dev:
            train, dev = held_out(parts.train, self.dev_per_source, self.seed, "dev_per_source")
            parts = replace(parts, train=train)
        elif self.dev_per_source:
            dev = subset(dev, self.dev_per_source, self.seed, "dev", "dev_per_source")
        return replace(parts, dev=dev)

    def _capped(self, parts: Parts, source: Any) -> Parts:
        parts = source.limited(parts)
        return replace(
            parts,
            train=self._drawn(parts.train, "train_per_source"),
            test=self._drawn(parts.test, "test_per_source"),
        )

    def _drawn(self, examples: Sequence[Example], setting: str) -> tuple[Example, ...]:
        return subset(examples, getattr(self, setting), self.seed, setting, setting)


def _named(name: str, parts: Parts) -> Parts:
    """Examples under the mix's name for their source; the file or data set they come from is their category."""

    def named(id: str) -> str:
        return id if id.startswith(f"{name}/") else f"{name}/{id}"

    def renamed(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(
            replace(
                example,
                id=named(example.id),
                source=name,
                category=example.category or (example.source if example.source != name else ""),
            )
            for example in examples
        )

    return replace(
        parts,
        train=renamed(parts.train),
        dev=renamed(parts.dev),
        test=renamed(parts.test),
        drops=parts.drops.renamed(name, named),
    )


def _all(parts: dict[str, Parts], split: str) -> tuple[Example, ...]:
    return tuple(example for each in parts.values() for example in getattr(each, split))
