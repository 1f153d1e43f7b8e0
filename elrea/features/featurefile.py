"""The file of a stage's features: safetensors, written in place row by row, read without being loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from elrea.errors import DataError, StoreError

NAME = "features.safetensors"
"""Of the file; its one tensor is `features` [n, d]."""

DTYPES = {"F16": "<f2", "F32": "<f4"}
"""safetensors' names and numpy's: unit rows stand in half precision, others in single."""

Kind = Literal["F16", "F32"]

_LONGEST = 100_000
"""Bytes of a header that is believed: ours has about 100."""


def create(path: Path, n: int, d: int, kind: Kind) -> None:
    """Makes a file of zeros at its full size, with a header that any reader of safetensors understands.

    Args:
        path: A file that is there is replaced.
        n, d: Rows and columns.
        kind: `F16` or `F32`.
    """
    nbytes = n * d * np.dtype(DTYPES[kind]).itemsize
    entry = {"dtype": kind, "shape": [n, d], "data_offsets": [0, nbytes]}
    header = json.dumps({"features": entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at multiples of 8
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + nbytes)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_rows(path: Path, rows: np.ndarray, values: np.ndarray) -> None:
    """Puts rows in their places and has them written to the disk.

    By ordinary writing: on a full disk a mapped file would end the process without a word.

    Args:
        path: A file that `create` made.
        rows: Places [m].
        values: [m, d], brought to the file's kind.
    """
    array = open_features(path)
    row_bytes = array.shape[1] * array.dtype.itemsize
    start = int(array.offset)
    block = np.ascontiguousarray(values, dtype=array.dtype)
    del array
    with path.open("r+b", buffering=0) as file:
        for row, value in zip(rows.tolist(), block, strict=True):
            file.seek(start + row * row_bytes)
            left = memoryview(value.tobytes())
            while left:
                left = left[file.write(left) :]
        os.fsync(file.fileno())


def open_features(path: Path, n: int | None = None, d: int | None = None) -> np.memmap:
    """The features of a file, mapped read-only: [n, d] in float16 or float32.

    Args:
        path: The file.
        n, d: What its shape has to be, where that is known.

    Raises:
        StoreError: It is not there, cut short, or no file of features.
        DataError: It is of another shape.
    """
    entry, start = _header(path)
    try:
        (name, found), kind = entry["shape"], DTYPES[entry["dtype"]]
        nbytes = int(name) * int(found) * np.dtype(kind).itemsize
        if entry["data_offsets"] != [0, nbytes] or min(name, found) < 1:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} holds no features: {entry}") from error
    rows, columns = int(name), int(found)
    if (size := path.stat().st_size) != start + nbytes:
        raise StoreError(
            f"{path} has {size} bytes, not {start + nbytes}: it was cut short; delete it and run again"
        )
    if n is not None and rows != n:
        raise DataError(f"{path} holds features of {rows} examples, not {n}: it is of other data")
    if d is not None and columns != d:
        raise DataError(
            f"{path} holds features of {columns} dimensions, not {d}: it is of another projection or model"
        )
    return np.memmap(path, dtype=kind, mode="r", offset=start, shape=(rows, columns))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The entry of the one tensor, and where its bytes begin."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _LONGEST:
                raise ValueError
            text = file.read(length)
        if len(text) < length:
            raise ValueError
        return dict(json.loads(text)["features"]), 8 + length
    except FileNotFoundError as error:
        raise StoreError(f"no such file: {path}") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no file of features: delete it and run again") from error
