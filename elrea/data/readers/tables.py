"""Rows of files in the forms that data sets come in: JSON lines, JSON, TSV, Parquet; gzipped or not."""

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
"""What is taken for a data file; each but the last may end in .gz too."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, wherever it comes from."""

    value: Mapping[str, Any]
    where: str
    """For messages: "train.jsonl:12", "SVAMP.json, entry 12", "openai/gsm8k train, row 12"."""
    file: str = ""
    """The file's name without its suffixes, or the hub's config; some sources' task."""


def suffix_of(file: Path) -> str:
    """ ".jsonl" of both a.jsonl and a.jsonl.gz."""
    return Path(file.name.removesuffix(".gz")).suffix


def stem_of(file: Path) -> str:
    """ "a" of both a.jsonl and a.jsonl.gz."""
    return Path(file.name.removesuffix(".gz")).stem


def files_of(place: Path, prefix: str = "", setting: str = "data.root") -> list[Path]:
    """The data files of a folder whose names begin as given, sorted by name; of a file, itself.

    Raises:
        DataError: there is no such file or folder.
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
    """The file of a split, or its parts in order; none where there is none.

    Published folders keep other versions beside it: train_socratic.jsonl beside train.jsonl. So "train.jsonl" goes
    before "train-00000-of-00002.parquet" and its like, and these before the one file whose name begins with "train".

    Raises:
        DataError: there is no such folder, a part is missing, or several files may be meant.
    """
    files = files_of(place, split)
    exact = [file for file in files if stem_of(file) == split]
    parts = [file for file in files if re.fullmatch(rf"{split}-\d+-of-\d+", stem_of(file))]
    found = exact or parts or files
    if not exact and parts:
        whole = {int(stem_of(file).rpartition("-")[2]) for file in parts}
        if whole == {len(parts)}:
            return parts
        raise DataError(
            f"{place}: not all parts of {split} are here, or two sets of them:"
            f" {', '.join(file.name for file in parts)}"
        )
    if len(found) > 1:
        raise DataError(
            f"{place}: {' and '.join(file.name for file in found)}: which is {split}? Keep one of them in here, or name"
            f" it {split}{suffix_of(found[0])}"
        )
    return found


def rows_of(file: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Read a file's rows.

    Args:
        file: by its suffix: JSON lines; JSON, which is a list of objects or one of them; TSV; Parquet.
        columns: names of a TSV's columns, which has no header.

    Raises:
        DataError: the file is empty, cannot be read or is broken; with file and line.
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
    """A file's first row; None where it has none that can be read."""
    try:
        return next(rows_of(file)).value
    except DataError:
        return None


def parse_row(raw: bytes, where: str) -> Mapping[str, Any] | None:
    """One line as a JSON object; None for a blank one.

    Raises:
        DataError: it is none, or not UTF-8; the message begins with `where`.
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
        hint = "; write a JSON list as one object a line" if text.startswith("[") else ""
        raise DataError(f"{where}: broken JSON ({reason}){hint}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; write one object a line")
    return row


Found = Iterator[tuple[Mapping[str, Any], str]]


def _json_lines(file: Path, _columns: Sequence[str]) -> Found:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as stream:
        for line, raw in enumerate(stream, start=1):
            row = parse_row(raw, f"{file}:{line}")
            if row is not None:
                yield row, f"{file}:{line}"


def _json(file: Path, columns: Sequence[str]) -> Found:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as stream:
        raw = stream.read()
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}:{line}: not UTF-8; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under another name
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
            raise DataError(f"{where}: not a JSON object but {type(row).__name__}")
        yield row, where


def _tsv(file: Path, columns: Sequence[str]) -> Found:
    if not columns:
        raise DataError(f"{file}: a table without names of columns; this source reads JSON")
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
                    f"{where}: {len(cells)} columns; there must be {len(columns)}:"
                    f" {', '.join(columns)}, with a tab between"
                )
            yield dict(zip(columns, cells, strict=True)), where


def _parquet(file: Path, _columns: Sequence[str]) -> Found:
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
