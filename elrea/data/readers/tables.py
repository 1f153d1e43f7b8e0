"""Finds the data files of a folder and reads their rows (`formats`)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elrea.data.readers.formats import READERS, BadRow, OnBad, json_lines, parquet, refuse
from elrea.errors import DataError

SUFFIXES = (".jsonl", ".json", ".tsv", ".parquet")
"""Suffixes of the data files of published data sets. All except .parquet may be followed by .gz."""


class EmptyFile(DataError):
    """A file without a row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file or of a hub data set."""

    value: Mapping[str, Any]
    where: str
    """Place for the messages: "train.jsonl:12", "SVAMP.json, entry 12", "openai/gsm8k train, row 12"."""
    file: str = ""
    """The file's name without suffixes, or the hub's config. Some sources have one task in each file."""
    number: int = 0
    """The row's line, or its number in a file that is not read by lines."""


def suffix_of(file: Path) -> str:
    """ ".jsonl" of a.jsonl, a.jsonl.gz and A.JSONL."""
    return _unzipped(file).suffix.lower()


def stem_of(file: Path) -> str:
    """ "a" of both a.jsonl and a.jsonl.gz."""
    return _unzipped(file).stem


def _unzipped(file: Path) -> Path:
    """The file's name without .gz, in small or capital letters."""
    return Path(file.stem if file.suffix.lower() == ".gz" else file.name)


def files_of(place: Path, prefix: str = "") -> list[Path]:
    """The data files of a folder whose names begin with `prefix`, sorted; for a file, the file itself.

    Raises:
        DataError: the file or folder does not exist.
    """
    if place.is_file():
        return [place] if place.name.startswith(prefix) else []
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder (data.root)")
    return sorted(
        file
        for file in place.iterdir()
        if file.name.startswith(prefix) and suffix_of(file) in SUFFIXES and file.is_file()
    )


def split_files(place: Path, split: str) -> list[Path]:
    """The file of a split, or its numbered parts in order; empty if there is none.

    Published folders also have other versions of a split, as train_socratic.jsonl next to train.jsonl. The choice is
    therefore: "train.jsonl"; else all of "train-00000-of-00002.parquet" and so on; else the only file whose name begins
    with "train".

    Raises:
        DataError: the folder does not exist, a part is missing, or several files could be the split.
    """
    files = files_of(place, split)
    exact = [file for file in files if stem_of(file) == split]
    parts = [file for file in files if re.fullmatch(rf"{split}-\d+-of-\d+", stem_of(file))]
    if parts and not exact:
        totals = {int(stem_of(file).rpartition("-")[2]) for file in parts}
        if totals == {len(parts)}:
            return parts
        raise DataError(
            f"{place}: some parts of {split} are missing, or there are two sets of them:"
            f" {', '.join(file.name for file in parts)}"
        )
    candidates = exact or files
    if len(candidates) > 1:
        raise DataError(
            f"{place}: {' and '.join(file.name for file in candidates)} could each be {split}; keep one of them here,"
            f" or rename it to {split}{suffix_of(candidates[0])}"
        )
    return candidates


def rows_of(
    file: Path,
    columns: Sequence[str] = (),
    on_bad: OnBad = refuse,
    ignore: Collection[str] = (),
) -> Iterator[Row]:
    """Read a file's rows.

    Args:
        file: JSON lines; JSON with one object or a list of objects; CSV; TSV; or Parquet. The suffix decides; a file
            with another suffix is read as JSON lines.
        columns: names of the columns of a TSV without a header and quotes.
        on_bad: called for a row that cannot be used; raises its error by default.
        ignore: columns of Parquet that are not read. The fields of other rows are the caller's to skip.

    Raises:
        UnreadColumn: a column of Parquet that cannot be read.
        DataError: the file is empty (`EmptyFile`), cannot be read or is damaged; with file and line.
    """
    kind, name = suffix_of(file), stem_of(file)
    count = 0

    def counted(error: BadRow) -> None:
        nonlocal count
        count += 1
        on_bad(error)

    try:
        rows = (
            parquet(file, ignore)
            if kind == ".parquet"
            else READERS.get(kind, json_lines)(file, columns, counted)
        )
        for value, where, number in rows:
            count += 1
            yield Row(value, where, name, number)
    except (
        OSError,
        EOFError,
        zlib.error,
    ) as error:  # gzip's end of file and broken bytes among them
        raise DataError(
            f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not count:
        raise EmptyFile(f"{file}: the file is empty; remove it or fill it")


def head(file: Path) -> Mapping[str, Any] | None:
    """A file's first row; None if it has no row that can be read."""
    try:
        return next(rows_of(file)).value
    except DataError:
        return None


def first_line(file: Path) -> str:
    """A text file's first line without the line break; empty if the file cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as stream:
            return stream.readline().rstrip("\r\n")
    except OSError:
        return ""
