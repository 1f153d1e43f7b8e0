"""Several sources as one data set, with overlap resolved between all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elrea.data.corpus import Corpus, Splits
from elrea.data.drops import Drops
from elrea.data.options import Options
from elrea.data.overlap.held_out import HeldOut, Overlap, resolve_overlap
from elrea.data.sampling import hold_out, subset
from elrea.data.sources.base import Limits, corpus_of, settings_below
from elrea.data.sources.benchmark import Benchmark
from elrea.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from elrea.data.examples import Example


_USED = ("is_located", "read", "hold_out", "limit")
"""The methods that a choice of data must have to be mixed."""


@dataclass
class Mix(Limits):
    """Training and test examples of every source. The source's name in the mix is the `source` of its examples.

    A source without a test split has `test_share` of its own questions held out. A source without a place to read from
    is left out.
    """

    sources: dict[str, Any] = field(default_factory=dict)
    """Name -> a choice of this group, with its own settings, such as `limit_train`, `shots` and `test_share`. Only
    `seed` and `allow_overlap` are those of the mix, and are refused here."""
    root: str | None = None
    """Folder with one folder for each source, by name, for the sources without a place of their own. Sources without a
    folder there are left out and named in the note."""
    hub: bool = False
    """Read the sources without a place from their public data sets on the hub."""
    only: list[str] | None = None
    """Names of the sources to use, each of which must exist; None uses those that exist."""
    test_share: float | None = None
    """Replaces the `test_share` of each source."""
    test_per_source: int | None = None
    """Maximum number of test examples of each source; None leaves it to each `limit_test`."""
    train_per_source: int | None = None
    """Maximum number of training examples of each source; None leaves it to each `limit_train`."""
    dev_per_source: int = 0
    """Number of dev questions of each source, from its own dev split or held out of train."""
    overlap: Overlap | None = None
    """What to do with a test question of any source that is also in train or dev, or a dev question in train: "refuse"
    the data, or "drop" and count the copy there. None: each source's own `overlap` decides for its train and dev."""
    options: Options | None = None
    """How rows with choices are asked, in every source that can have them: "letters" or "text", as in data=jsonl. None:
    each source's own `options` decides."""

    name: ClassVar[str] = "mix"
    title: ClassVar[str] = "mix of"

    def load(self) -> Corpus:
        """Read all sources, hold out, resolve overlap, limit and check.

        Raises:
            DataError: a problem in a source, a requested source that does not exist, or no source at all.
            ConfigError: a name that is not in `sources`, a source that cannot be mixed, a setting of it that a mix does
                not use, or a number out of range.
        """
        sources, missing = self._located()
        for name, source in sources.items():
            if source.allow_overlap:
                raise _one_for_all(name, "allow_overlap", source)
        splits: dict[str, Splits] = {}
        for name, source in sources.items():
            with settings_below(f"data.sources.{name}", source):
                read = source.read()
            splits[name] = self._hold_out(name, _named(name, read), source)
        drops = Drops()
        for each in splits.values():
            drops.update(each.drops)
        if not self.allow_overlap:
            held_out = HeldOut(_all(splits, "dev"), _all(splits, "test"))
            for name, each in splits.items():
                overlap = self.overlap or sources[name].overlap
                each = replace(each, drops=drops)
                splits[name] = resolve_overlap(each, overlap, f"data.sources.{name}", held_out)
        limited = {}
        for name, source in sources.items():
            with settings_below(f"data.sources.{name}", source):
                each = self._limit_source(splits[name], source)
                limited[name] = source.give_shots(each) if hasattr(source, "give_shots") else each
        sizes = ", ".join(
            f"{name} {len(each.train):,} and {len(each.test):,}" for name, each in limited.items()
        )
        whole = Splits(
            _all(limited, "train"),
            _all(limited, "dev"),
            _all(limited, "test"),
            drops,
            f"{self.title} {sizes} to train and test"
            + (f"; missing: {', '.join(missing)}" if missing else ""),
            _listed(list(limited)),
        )
        asked = {source.options for source in sources.values() if hasattr(source, "options")}
        options: Options = "text" if asked == {"text"} else "letters"
        return corpus_of(self.name, self.limit(whole), "source", options)

    def read(self) -> Splits:
        """All examples of every source as train, limited by source, with nothing held out: for a benchmark's train."""
        sources, _ = self._located()
        drops = Drops()
        train: list[Example] = []
        for name, source in sources.items():
            with settings_below(f"data.sources.{name}", source):
                splits = _named(name, source.read())
            drops.update(splits.drops)
            train += self._limit_source(splits, source).train
        note, short = f"{self.title} {', '.join(sources)}", f"a mix of {_listed(list(sources))}"
        return Splits(tuple(train), drops=drops, note=note, short=short)

    def _located(self) -> tuple[dict[str, Any], list[str]]:
        """The sources to read, each with its place and this mix's seed, and the names of those that are missing."""
        for name, source in self.sources.items():
            if isinstance(source, Benchmark):
                raise ConfigError(
                    f"data.sources.{name}: {source.title} has no training questions, so it cannot be mixed; to train on"
                    f" the other sources, set data={source.name} +data@data.train=mix"
                )
            if not all(hasattr(source, method) for method in _USED):
                raise ConfigError(
                    f"data.sources.{name}: this choice of data cannot be mixed; leave it out"
                )
            if source.seed not in (0, self.seed):
                raise _one_for_all(name, "seed", source)
        for name in self.only or ():
            if name not in self.sources:
                near = did_you_mean(name, self.sources)
                raise ConfigError(
                    f"data.only: no source {name!r}{near} (there is: {', '.join(self.sources)})"
                )
        located, missing = {}, []
        for name in self.only or self.sources:
            source = replace(self.sources[name], seed=self.seed)
            if self.options and hasattr(source, "options"):
                source = replace(source, options=self.options)
            if not source.is_located() and self.root:
                folder = Path(self.root) / name
                source = source.at(folder) if folder.exists() or self.only else source
            if not source.is_located() and self.hub:
                source = source.on_hub()
            if source.is_located():
                located[name] = source
            else:
                missing.append(name)
        if not located:
            raise DataError(
                f"data={self.name} has no source: set data.root=<folder with a folder for each of"
                f" {', '.join(self.sources)}>, data.hub=true, or data.sources.<name>.root for some"
            )
        return located, missing if self.root or self.only else []

    def _hold_out(self, name: str, splits: Splits, source: Any) -> Splits:
        """A source's splits with test and dev held out of train."""
        if self.test_share is not None:
            source = replace(source, test_share=self.test_share)
        splits = source.hold_out(splits)
        for split in ("train", "test"):
            if not getattr(splits, split):
                raise DataError(f"data.sources.{name}: there are no {split} examples")
        dev = splits.dev
        if self.dev_per_source and not dev:
            train, dev = hold_out(splits.train, self.dev_per_source, self.seed, "dev_per_source")
            splits = replace(splits, train=train)
        elif self.dev_per_source:
            dev = subset(dev, self.dev_per_source, self.seed, "dev", "dev_per_source")
        return replace(splits, dev=dev)

    def _limit_source(self, splits: Splits, source: Any) -> Splits:
        splits = source.limit(splits)
        return replace(
            splits,
            train=self._subset(splits.train, "train_per_source"),
            test=self._subset(splits.test, "test_per_source"),
        )

    def _subset(self, examples: Sequence[Example], setting: str) -> tuple[Example, ...]:
        return subset(examples, getattr(self, setting), self.seed, setting, setting)


def _one_for_all(name: str, setting: str, source: Any) -> ConfigError:
    """The error for a setting of a source that a mix does not use."""
    value = getattr(source, setting)
    return ConfigError(
        f"data.sources.{name}.{setting}={value}: a mix has one for all its sources; set data.{setting}={value}"
    )


def _listed(names: Sequence[str]) -> str:
    """The names of a mix's sources for a title: at most four, or three and how many more."""
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more sources"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _named(name: str, splits: Splits) -> Splits:
    """Splits with the mix's name as the source of all examples.

    Where one of them has several sources, these become the categories that are missing. A file's name is a source too.
    """
    sources = [
        {example.source for example in split} for split in (splits.train, splits.dev, splits.test)
    ]
    several = any(len(each) > 1 for each in sources)

    def new_id(id: str) -> str:
        return id if id.startswith(f"{name}/") else f"{name}/{id}"

    def renamed(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(
            replace(
                example,
                id=new_id(example.id),
                source=name,
                category=example.category
                or (example.source if several and example.source != name else ""),
            )
            for example in examples
        )

    return replace(
        splits,
        train=renamed(splits.train),
        dev=renamed(splits.dev),
        test=renamed(splits.test),
        drops=splits.drops.renamed(name, new_id),
    )


def _all(splits: dict[str, Splits], split: str) -> tuple[Example, ...]:
    return tuple(example for each in splits.values() for example in getattr(each, split))
