"""Parses the formats of data files: JSON lines, JSON, CSV, TSV and Parquet; all but the last may be gzipped.

Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from elrea.errors import DataError


class BadRow(DataError):
    """One row that cannot be used. `data.bad_rows=drop` skips and counts it.

    Args:
        where: its place, "train.jsonl:12".
        problem: what is wrong, then "; " and what to change.
        kind: the problem in words that are the same for all such rows, to count them by; empty takes `problem` up to
            the semicolon.
    """

    def __init__(self, where: str, problem: str, kind: str = "") -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.kind = kind or problem.partition(";")[0]


class UnknownField(DataError):
    """A row with a field that has no role: `data.fields` or `data.ignore` must say what it is."""


class UnreadColumn(DataError):
    """A column of Parquet whose values Python cannot hold; the settings may skip it.

    Args:
        file: the file.
        name: the column's.
        reason: why it cannot be read.
    """

    def __init__(self, file: Path, name: str, reason: str) -> None:
        super().__init__(
            f"{file}: the column {name!r} cannot be read ({reason}); save it as text, or leave it out"
        )
        self.name = name


OnBad = Callable[[BadRow], None]
"""Called for each row that cannot be used; the rows after it are read if it returns."""


def refuse(error: BadRow) -> None:
    """Raise the error of a row that cannot be used."""
    raise error


def parse_row(raw: bytes, where: str) -> Mapping[str, Any] | None:
    """Parse one line as a JSON object; None for a blank line.

    Raises:
        BadRow: the line is not a JSON object, has a key twice, or is not UTF-8; the message begins with `where`.
    """
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff").strip()
    except UnicodeDecodeError as error:
        raise BadRow(
            where, f"not UTF-8 (byte {error.start + 1}); save it as UTF-8", "not UTF-8"
        ) from error
    if not text:
        return None
    try:
        row = _UNIQUE.decode(text)
    except _DuplicateKey as error:
        raise _key_twice(where, error) from error
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", str(error))
        hint = (
            "; write the items of a JSON list as one object a line" if text.startswith("[") else ""
        )
        raise BadRow(where, f"broken JSON ({reason}){hint}", "broken JSON") from error
    if not isinstance(row, dict):
        raise BadRow(where, "not a JSON object; write one object a line")
    return row


class _DuplicateKey(ValueError):
    """An object of a JSON text has a key twice; `args[0]` is the key."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs; Python's own reader keeps the last of two equal keys and says nothing."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKey(next(name for name in names if names.count(name) > 1))
    return made


def _key_twice(where: str, error: _DuplicateKey) -> BadRow:
    return BadRow(
        where, f"the key {error.args[0]!r} appears twice; keep one of the two", "duplicate key"
    )


_UNIQUE = json.JSONDecoder(object_pairs_hook=_unique)
_PLAIN = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")

Rows = Iterator[tuple[Mapping[str, Any], str, int]]
"""Each row, its place for the messages, and its number."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # begins with UTF-16's mark
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


_BINARY = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook, not text; unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook, not text; save it as CSV"),
    (b"\x1f\x8b", "compressed by gzip; let its name end with .gz, as in .jsonl.gz"),
    (b"BZh", "compressed by bzip2; unpack it, or compress it by gzip"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it, or compress it by gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it, or compress it by gzip"),
    (b"7z\xbc\xaf", "a 7z archive, not text; unpack it"),
    (b"PAR1", "Parquet; let its name end with .parquet"),
    (b"ARROW1", "an Arrow file, not text; save it as Parquet"),
)
"""The first bytes of files that are no text -> what they are."""


def _opened(file: Path) -> BinaryIO:
    """A file's bytes: unzipped, and as UTF-8 if they begin with the byte order mark of UTF-16 or UTF-32.

    Raises:
        DataError: the file has such a mark, and is not in that encoding; or it is no text at all.
    """
    stream = gzip.GzipFile(file) if file.suffix.lower() == ".gz" else file.open("rb")
    try:
        start = stream.peek(8)
        for mark, kind in _BINARY:
            if start.startswith(mark):
                raise DataError(f"{file}: {kind}")
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), None)
        if encoding is None:
            return cast(BinaryIO, stream)
        raw = stream.read()
    except BaseException:
        stream.close()
        raise
    stream.close()
    try:
        return io.BytesIO(raw.decode(encoding).encode())
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not {encoding} (byte {error.start + 1}); save it as UTF-8"
        ) from error


def _text_of(file: Path) -> str:
    """A whole file as text, without a byte order mark."""
    with _opened(file) as stream:
        raw = stream.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}:{line}: not UTF-8; save it as UTF-8") from error


def json_lines(file: Path, columns: Sequence[str], on_bad: OnBad) -> Rows:
    """One JSON object a line. A file that begins with [ is read as one JSON array, whatever its suffix."""
    is_first = True
    with _opened(file) as stream:
        # Binary mode: a line ends at \n only, not at U+2028 and the like inside strings.
        for line, raw in enumerate(stream, start=1):
            where = f"{file}:{line}"
            if is_first and raw.removeprefix(codecs.BOM_UTF8).strip():
                is_first = False
                if raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
                    yield from _json(file, columns, on_bad)
                    return
            try:
                row = parse_row(raw, where)
            except BadRow as error:
                on_bad(error)
                continue
            if row is not None:
                yield row, where, line


def _json(file: Path, columns: Sequence[str], on_bad: OnBad) -> Rows:
    text = _text_of(file).rstrip()
    if not text:
        return
    start = _after_space(text, 0)
    try:
        if text[start] == "[":
            yield from _entries(text, start, file, on_bad)
            return
        value, end = _PLAIN.raw_decode(text, start)
        if end < len(text):  # JSON lines in a .json file
            yield from json_lines(file, columns, on_bad)
        elif isinstance(value, dict):
            yield _UNIQUE.decode(text), str(file), 1
        else:
            on_bad(BadRow(f"{file}, entry 1", _no_object(value)))
    except _DuplicateKey as error:
        on_bad(_key_twice(str(file), error))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}: broken JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: broken JSON ({error})") from error


def _entries(text: str, start: int, file: Path, on_bad: OnBad) -> Rows:
    """The objects of the JSON array at `start`, each parsed alone, so that an error names its entry.

    Raises:
        ValueError: the text is not a JSON array.
    """
    position, number = _after_space(text, start + 1), 0
    while text[position : position + 1] != "]" or number:
        number += 1
        where = f"{file}, entry {number}"
        try:
            entry, end = _UNIQUE.raw_decode(text, position)
        except _DuplicateKey as error:
            on_bad(_key_twice(where, error))
            end = _PLAIN.raw_decode(text, position)[1]
        else:
            if isinstance(entry, dict):
                yield entry, where, number
            else:
                on_bad(BadRow(where, _no_object(entry)))
        position = _after_space(text, end)
        if text[position : position + 1] == "]":
            break
        if text[position : position + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
        position = _after_space(text, position + 1)
    if position + 1 < len(text):
        raise json.JSONDecodeError("Extra data", text, position + 1)


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _no_object(value: object) -> str:
    return f"{type(value).__name__} instead of a JSON object"


def _csv(file: Path, _columns: Sequence[str], on_bad: OnBad) -> Rows:
    return _table(file, ",", on_bad)


def _tsv(file: Path, columns: Sequence[str], on_bad: OnBad) -> Rows:
    if not columns:
        yield from _table(file, "\t", on_bad)
        return
    with _opened(file) as stream:
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
            yield dict(zip(columns, cells, strict=True)), where, line


_SEPARATOR = re.compile(r'"?sep=([^"])"?\r?', re.IGNORECASE)
"""Excel's first line."""
_LONGEST_CELL = 2**31 - 1
"""Characters; the csv module's own limit is 131,072."""


def _table(file: Path, delimiter: str, on_bad: OnBad) -> Rows:
    """The rows of a table with a header and quoted cells, as spreadsheets save it.

    Semicolons separate the cells of a CSV whose header has one and no comma, as where the comma is the decimal point.
    A line `sep=;` before the header, as Excel writes it, names the character that separates them. A first column
    without a name is a row index of pandas, which is left out.

    Raises:
        DataError: broken quotes, or a header with an empty name or the same name twice.
    """
    text = _text_of(file)
    first, end, rest = text.partition("\n")
    if said := _SEPARATOR.fullmatch(first):
        delimiter, text = said[1], end + rest
    elif delimiter == "," and ";" in first and "," not in first:
        delimiter = ";"
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in rows:
            start, line = line, rows.line_num + 1  # first lines of this row and of the next
            where = f"{file}:{start}"
            if not any(cells):
                continue
            if header is None:
                header = _header(cells, where)
            elif len(cells) != len(header):
                problem = f"{len(cells)} cells instead of {len(header)}; quote a cell that has a {delimiter!r}"
                on_bad(BadRow(where, problem, "wrong number of cells"))
            else:
                named = zip(header, cells, strict=True)
                yield {name: cell for name, cell in named if name}, where, start
    except csv.Error as error:
        raise DataError(f"{file}:{line}: broken table ({error})") from error


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if "" in names[1:] or names == [""]:
        raise DataError(f"{where}: a column without a name; name it in the header")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{where}: the column {name!r} appears twice; rename one of the two")
    return names


def parquet(file: Path, ignore: Collection[str] = ()) -> Rows:
    """The rows of a Parquet file, without the columns to ignore, which may have what Python cannot hold.

    Raises:
        UnreadColumn: a column that Python cannot hold, such as text that is not UTF-8.
        DataError: broken Parquet, two columns of one name, or there is no pyarrow.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{file}: Parquet needs pyarrow: pip install 'elrea[hub]'") from error
    number = 0
    try:
        table = ParquetFile(file)
        names = [name for name in table.schema_arrow.names if name not in ignore]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"{file}: the column {twice!r} appears twice; rename one of the two")
        for batch in table.iter_batches(columns=names):
            values = [_values(file, name, batch.column(name)) for name in names]
            for cells in zip(*values, strict=True):
                yield dict(zip(names, cells, strict=True)), f"{file}, row {number}", number
                number += 1
    except ArrowException as error:
        raise DataError(f"{file}: broken Parquet ({str(error).splitlines()[0]})") from error


def _values(file: Path, name: str, column: Any) -> list[Any]:
    """The values of a column of Parquet."""
    try:
        return cast(list[Any], column.to_pylist())
    except (ValueError, OverflowError) as error:
        # Text that is not UTF-8, a date after the year 9999, nanoseconds.
        raise UnreadColumn(file, name, str(error).splitlines()[0]) from error


READERS = {".jsonl": json_lines, ".json": _json, ".csv": _csv, ".tsv": _tsv}
"""Of text, by the suffix without .gz in small letters."""
