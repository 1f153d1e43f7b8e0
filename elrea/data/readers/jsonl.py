"""Reads instruction files: one example a row, in the formats of `formats` and the forms of `rows`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from elrea.data.readers.formats import BadRow, OnBad, UnknownField, UnreadColumn, refuse
from elrea.data.readers.forms import instances
from elrea.data.readers.hints import ignoring
from elrea.data.readers.rows import source_of
from elrea.data.readers.tables import EmptyFile, rows_of, suffix_of
from elrea.errors import DataError

if TYPE_CHECKING:
    from elrea.data.drops import Drops
    from elrea.data.examples import Example
    from elrea.data.readers.rows import RowReader

log = logging.getLogger(__name__)

BadRows = Literal["refuse", "drop"]

SUFFIXES = (".json", ".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
"""Suffixes of the files that are read from a folder without *.jsonl; all but .parquet may be followed by .gz."""
_OTHER = (
    ".arrow",
    ".feather",
    ".xlsx",
    ".xls",
    ".ods",
    ".zip",
    ".7z",
    ".tar",
    ".tgz",
    ".bz2",
    ".xz",
    ".zst",
)
"""Suffixes of files that may hold data too, and are not read."""

DIFFERENT = "if files have different fields, make each a source of data=mix: docs/quickstart.md"
"""What to do where the fields of one file are not those of another."""
NAMED = 3
"""Files that a warning names."""


def read_files(
    settings: Mapping[str, str | Sequence[str] | None],
    reader: RowReader,
    drops: Drops,
    bad_rows: BadRows = "refuse",
) -> dict[str, tuple[Example, ...]]:
    """Read the instruction files that some settings name.

    Args:
        settings: setting ("data.train") -> its files, or folders; None for no files. Of a folder all *.jsonl files are
            read, sorted by name; if there are none, all files with one of `SUFFIXES`.
        reader: turns rows into examples.
        drops: every row that is dropped, and every empty file of a folder, is added to it.
        bad_rows: "refuse" rows that cannot be used, or "drop" them.

    Returns:
        The examples of each setting, file after file. Ids are "<folder>/<file>:<line or id>".

    Raises:
        DataError: a missing file or folder, a folder without data files, a file that is given twice, no examples, or,
            with file and line, a row that cannot be used.
    """
    files_of = {
        key: _files([paths] if isinstance(paths, str) else paths or (), key)
        for key, paths in settings.items()
    }
    given: dict[str, str] = {}
    for key, files in files_of.items():
        for file, _ in files:
            if (path := os.path.realpath(file)) in given:
                raise DataError(f"{file}: given twice ({given[path]} and {key}); name it once")
            given[path] = key
    labels = _labels([file for files in files_of.values() for file, _ in files])
    return {
        key: _examples(key, files, labels, reader, drops, bad_rows)
        for key, files in files_of.items()
    }


def _files(paths: Sequence[str], key: str) -> list[tuple[Path, bool]]:
    """The files to read, with each folder replaced by its data files; True for a file of a folder."""
    files: list[tuple[Path, bool]] = []
    given = [Path(path) for path in paths]
    for path in given:
        if path.is_dir():
            inside = sorted(f for f in path.iterdir() if not f.name.startswith(".") and f.is_file())
            lines = [file for file in inside if file.suffix.lower() == ".jsonl"]
            chosen = lines or [file for file in inside if suffix_of(file) in SUFFIXES]
            other = [file for file in inside if _is_data(file) and file not in (*chosen, *given)]
            if not chosen:
                found = f" but {_names(other)}" if other else ""
                raise DataError(
                    f"{path}: no data file in this folder{found} ({key}); give .jsonl, .json, .csv, .tsv or .parquet"
                    " files"
                )
            if other:
                kinds = "*.jsonl" if lines else f"files with {', '.join(SUFFIXES)}"
                log.warning(
                    "%s: of this folder the %s alone are read, not %s; name files to read others",
                    path, kinds, _names(other),
                )  # fmt: skip
            files += [(file, True) for file in chosen]
        elif path.is_file():
            files.append((path, False))
        else:
            raise DataError(f"{path}: no such file or folder ({key})")
    return files


def _is_data(file: Path) -> bool:
    """Whether a file looks like data, also in a form that is not read, as a.jsonl.zst and b.xlsx."""
    return any(suffix.lower() in (*SUFFIXES, *_OTHER) for suffix in file.suffixes)


def _names(files: Sequence[Path]) -> str:
    """The names of the first files, and how many more there are."""
    more = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
    return ", ".join(file.name for file in files[:NAMED]) + more


def _labels(files: Sequence[Path]) -> dict[Path, str]:
    """Each file's folder and name, "t0/ag_news.jsonl"; with more parent folders if two files would have one label."""
    parts = {file: Path(os.path.abspath(file)).parts for file in files}
    depth = 2
    while len({path[-depth:] for path in parts.values()}) < len(parts):
        depth += 1
    return {file: "/".join(path[-depth:]) for file, path in parts.items()}


def _examples(
    key: str,
    files: Sequence[tuple[Path, bool]],
    labels: Mapping[Path, str],
    reader: RowReader,
    drops: Drops,
    bad_rows: BadRows,
) -> tuple[Example, ...]:
    """The examples of one setting's files.

    Raises:
        DataError: a row that cannot be used, a column of choices that no row has, or files without examples.
    """
    split = key.removeprefix("data.")
    examples: list[Example] = []
    problems: list[DataError] = []
    for file, in_folder in files:

        def dropped(error: BadRow, source: str = source_of(labels[file])) -> None:
            problems.append(error)
            drops.add(source, f"dropped from {split}", error.kind, error.where)

        try:
            examples += _read(
                file, labels[file], reader, refuse if bad_rows == "refuse" else dropped
            )
        except BadRow as error:
            raise DataError(f"{error} (data.bad_rows=drop leaves such rows out)") from error
        except UnreadColumn as error:
            hint = ignoring([*reader.skipped, error.name])
            raise DataError(f"{error} ({hint} skips it)") from error
        except UnknownField as error:
            if len(files) == 1 or not (examples or reader.is_mapped):
                raise
            raise DataError(f"{error} ({DIFFERENT})") from error
        except EmptyFile as error:
            if not in_folder:
                raise
            problems.append(error)
            drops.add(source_of(labels[file]), f"empty file(s) in {split}", "no row", str(file))
    if examples and reader.unseen:
        raise DataError(
            f"{key}: no row has the column {sorted(reader.unseen)[0]!r}, which data.fields.choices names"
        )
    if files and not examples:
        bad = [problem for problem in problems if isinstance(problem, BadRow)]
        rows = f"{key}: none of the {len(bad):,} rows can be used, first " if bad else ""
        raise DataError(f"{rows}{(bad or problems)[0]}")
    return tuple(examples)


def _read(file: Path, label: str, reader: RowReader, on_bad: OnBad) -> list[Example]:
    examples: list[Example] = []
    places: dict[str, str] = {}
    for row in rows_of(file, on_bad=on_bad, ignore=reader.skipped):
        try:
            read = [
                reader.read(part, row.where, label, row.number)
                for part in instances(row.value, row.number, row.where)
            ]
            for example in read:
                if example.id in places:
                    name = example.id.rpartition(":")[2]
                    problem = f"duplicate id {name!r}, first at {places[example.id]}; make every id unique"
                    raise BadRow(row.where, problem, "duplicate id")
        except BadRow as error:
            on_bad(error)
            continue
        places |= {example.id: row.where for example in read}
        examples += read
    return examples
