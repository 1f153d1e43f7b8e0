"""Reads the rows of data files: JSON lines, JSON, TSV and Parquet; the first three may be gzipped."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elrea.errors import DataError

SUFFIXES = (".jsonl", ".json", ".tsv", ".parquet")
"""Suffixes of data files. All except .parquet may be followed by .gz."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file or of a hub data set."""

    value: Mapping[str, Any]
    where: str
    """Place for the messages: "train.jsonl:12", "SVAMP.json, entry 12", "openai/gsm8k train, row 12"."""
    file: str = ""
    """The file's name without suffixes, or the hub's config. Some sources have one task in each file."""


def suffix_of(file: Path) -> str:
    """ ".jsonl" of both a.jsonl and a.jsonl.gz."""
    return Path(file.name.removesuffix(".gz")).suffix


def stem_of(file: Path) -> str:
    """ "a" of both a.jsonl and a.jsonl.gz."""
    return Path(file.name.removesuffix(".gz")).stem


def files_of(place: Path, prefix: str = "", setting: str = "data.root") -> list[Path]:
    """The data files of a folder whose names begin with `prefix`, sorted; for a file, the file itself.

    Raises:
        DataError: the file or folder does not exist.
    """
    if place.is_file():
        return [place] if place.name.startswith(prefix) else []
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder ({setting})")
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


def rows_of(file: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Read a file's rows.

    Args:
        file: JSON lines; JSON with one object or a list of objects; TSV; or Parquet. The suffix decides.
        columns: names of the columns of a TSV, which has no header.

    Raises:
        DataError: the file is empty, cannot be read or is damaged; with file and line.
    """
    kind, name = suffix_of(file), stem_of(file)
    count = 0
    try:
        for value, where in _READERS.get(kind, _json_lines)(file, columns):
            count += 1
            yield Row(value, where, name)
    except (
        OSError,
        EOFError,
        zlib.error,
    ) as error:  # gzip's end of file and broken bytes among them
        raise DataError(
            f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not count:
        raise DataError(f"{file}: the file is empty; remove it or fill it")


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


def parse_row(raw: bytes, where: str) -> Mapping[str, Any] | None:
    """Parse one line as a JSON object; None for a blank line.

    Raises:
        DataError: the line is not a JSON object, or not UTF-8; the message begins with `where`.
    """
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    if not text:
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", str(error))
        hint = (
            "; write the items of a JSON list as one object a line" if text.startswith("[") else ""
        )
        raise DataError(f"{where}: broken JSON ({reason}){hint}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; write one object a line")
    return row


Rows = Iterator[tuple[Mapping[str, Any], str]]
"""Each row and its place for the messages."""


def _json_lines(file: Path, _columns: Sequence[str]) -> Rows:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as stream:
        for line, raw in enumerate(stream, start=1):
            row = parse_row(raw, f"{file}:{line}")
            if row is not None:
                yield row, f"{file}:{line}"


def _json(file: Path, columns: Sequence[str]) -> Rows:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as stream:
        raw = stream.read()
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}:{line}: not UTF-8; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines in a .json file
            yield from _json_lines(file, columns)
            return
        raise DataError(f"{file}:{error.lineno}: broken JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: broken JSON ({error})") from error
    if isinstance(content, dict):
        yield content, str(file)
        return
    for number, row in enumerate(content if isinstance(content, list) else [content], start=1):
        where = f"{file}, entry {number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: {type(row).__name__} instead of a JSON object")
        yield row, where


def _tsv(file: Path, columns: Sequence[str]) -> Rows:
    if not columns:
        raise DataError(f"{file}: a TSV without column names; this source reads JSON")
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as stream:
        for line, raw in enumerate(stream, start=1):
            where = f"{file}:{line}"
            try:
                cells = raw.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n").split("\t")
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: not UTF-8; save it as UTF-8") from error
            if cells == [""]:
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{where}: {len(cells)} columns instead of {len(columns)}:"
                    f" {', '.join(columns)}, separated by tabs"
                )
            yield dict(zip(columns, cells, strict=True)), where


def _parquet(file: Path, _columns: Sequence[str]) -> Rows:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{file}: Parquet needs pyarrow: pip install 'elrea[hub]'") from error
    try:
        number = 0
        for batch in ParquetFile(file).iter_batches():
            for row in batch.to_pylist():
                yield row, f"{file}, row {number}"
                number += 1
    except ArrowException as error:
        raise DataError(f"{file}: broken Parquet ({str(error).splitlines()[0]})") from error


_READERS = {".json": _json, ".tsv": _tsv, ".parquet": _parquet}
