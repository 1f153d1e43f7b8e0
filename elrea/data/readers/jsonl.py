"""Reads instruction files: JSON lines, one example a line, in the formats of `elrea.data.readers.rows`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from elrea.data.readers.tables import parse_row
from elrea.errors import DataError

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.data.readers.rows import RowReader


def read_files(
    settings: Mapping[str, str | Sequence[str] | None], reader: RowReader
) -> dict[str, tuple[Example, ...]]:
    """Read the instruction files that some settings name.

    Args:
        settings: setting ("data.train") -> its files, or folders of which all *.jsonl files are read, sorted by name;
            None for no files.
        reader: turns rows into examples.

    Returns:
        The examples of each setting, file after file. Ids are "<folder>/<file>:<line or id>".

    Raises:
        DataError: a missing file or folder, a folder without *.jsonl, an empty file, a file that is given twice, broken
            JSON, text that is not UTF-8, a duplicate id, or a bad row; with file and line.
    """
    files_of = {
        key: _files([paths] if isinstance(paths, str) else paths or (), key)
        for key, paths in settings.items()
    }
    given: dict[str, str] = {}
    for key, files in files_of.items():
        for file in files:
            if (path := os.path.realpath(file)) in given:
                raise DataError(f"{file}: given twice ({given[path]} and {key}); name it once")
            given[path] = key
    labels = _labels([file for files in files_of.values() for file in files])
    return {
        key: tuple(example for file in files for example in _read(file, labels[file], reader))
        for key, files in files_of.items()
    }


def _files(paths: Sequence[str], key: str) -> list[Path]:
    """The files to read, with each folder replaced by its *.jsonl files."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(f for f in path.glob("*.jsonl") if not f.name.startswith("."))
            if not inside:
                raise DataError(f"{path}: no *.jsonl file in this folder ({key})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder ({key})")
    return files


def _labels(files: Sequence[Path]) -> dict[Path, str]:
    """Each file's folder and name, "t0/ag_news.jsonl"; with more parent folders if two files would have one label."""
    parts = {file: Path(os.path.abspath(file)).parts for file in files}
    depth = 2
    while len({path[-depth:] for path in parts.values()}) < len(parts):
        depth += 1
    return {file: "/".join(path[-depth:]) for file, path in parts.items()}


def _read(file: Path, label: str, reader: RowReader) -> list[Example]:
    examples: list[Example] = []
    lines: dict[str, int] = {}
    try:
        # Binary mode splits at \n only; text mode would also split at U+2028 and the like inside strings.
        with file.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                row = parse_row(raw, f"{file}:{line}")
                if row is None:
                    continue
                example = reader.read(row, f"{file}:{line}", label, line)
                if example.id in lines:
                    raise DataError(
                        f"{file}:{line}: duplicate id {example.id.rpartition(':')[2]!r}, first in line"
                        f" {lines[example.id]}; make every id unique"
                    )
                lines[example.id] = line
                examples.append(example)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    if not examples:
        raise DataError(f"{file}: the file is empty; remove it or fill it")
    return examples
