"""Recognises which data set a file belongs to: the hint for a user who gave one benchmark's file to another's source.

Every source says itself what its rows and files look like (`Layout`); all sources of `elrea.data.sources` are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

from elrea.data.readers.tables import SUFFIXES, head, suffix_of


class Layout:
    """How a source's rows and files are recognised. It serves hints in error messages only: nothing is read by it."""

    name: ClassVar[str]
    """The choice of `data` that reads them: "gsm8k"."""
    title: ClassVar[str]
    """The name that its users know: "GSM8K"."""
    columns: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Sets of columns. A row that has all of one set is recognised."""

    @classmethod
    def matching_columns(cls, row: Mapping[str, object]) -> int:
        """The size of the largest set of columns that a row has; 0 if the row is not recognised."""
        return max((len(names) for names in cls.columns if set(names) <= row.keys()), default=0)

    @classmethod
    def recognises(cls, place: Path) -> bool:
        """Whether a file or folder is recognised by its name, its inner files' names or its first line."""
        return False


def looks_like(row: object, reader: str = "") -> str:
    """The end of an error message about a row: "; it looks like GSM8K (data=gsm8k)", or nothing.

    Args:
        row: the row.
        reader: the choice of `data` that could not read it, which is not suggested again.
    """
    if not isinstance(row, Mapping):
        return ""
    best = max(_layouts(), key=lambda layout: layout.matching_columns(row))
    return _hint(best) if best.matching_columns(row) and best.name != reader else ""


def place_looks_like(place: Path) -> str:
    """The same for a file or folder, by the names in it and the first rows of its first five data files."""
    files = [place]
    if place.is_dir():
        files += sorted(file for file in place.glob("*") if suffix_of(file) in SUFFIXES)[:5]
    for file in files:
        for layout in _layouts():
            if layout.recognises(file):
                return _hint(layout)
        if file.is_file() and (hint := looks_like(head(file))):
            return hint
    return ""


def _layouts() -> list[type[Layout]]:
    """All sources that have a name, sorted by it."""
    package = import_module("elrea.data.sources")
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return sorted((c for c in _subclasses(Layout) if hasattr(c, "name")), key=lambda c: c.name)


def _subclasses(cls: type[Layout]) -> Iterator[type[Layout]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _hint(layout: type[Layout]) -> str:
    return f"; it looks like {layout.title} (data={layout.name})"
