"""From prompts to a file of features, chunk by chunk: memory does not grow, and a killed run goes on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from elrea.data.batches import by_tokens
from elrea.data.prompts import Encoded
from elrea.errors import DataError, ElreaError, StoreError
from elrea.method.features.protocol import Advance, Features, Reader, finish
from elrea.store.files import atomic_file, read_json, sha256_of, write_json
from elrea.store.lock import Lease
from elrea.store.manifest import CHECKPOINT

log = logging.getLogger(__name__)

CHUNK = 2_048
"""Prompts of a chunk at most, about: what a killed run loses."""

PARTS, LEAST = 16, 256
"""Chunks that there are to be where each then has so many prompts: processes share them, one by one."""

CHUNK_BYTES = 64 << 20
"""Of a chunk's rows in float32: with many dimensions it has fewer prompts."""

IDS, SKIPPED = "ids.json", "skipped.json"

Chunk = list[list[int]]
"""Batches of prompts' numbers."""


def stream(
    folder: Path,
    prompts: Sequence[Encoded],
    features: Features,
    reader: Reader,
    *,
    share: tuple[int, int] = (0, 1),
    advance: Advance = lambda _n: None,
) -> None:
    """Writes every prompt's feature, or goes on where a killed run stopped.

    Makes `features.safetensors` (rows in the prompts' order; float16 for rows of length 1, else float32), `ids.json`
    (their ids) and `skipped.json` (id -> row of prompts without a feature, whose rows are zeros). The bytes do not
    depend on how often it was stopped, nor on how many processes share the work.

    Args:
        folder: Where to; several processes may work on one. `checkpoint/` in it says what is done.
        prompts: At least one.
        features: Batch sizes and form of the features.
        reader: Takes them.
        share: (rank, world): this process takes every world-th chunk. The one that ends last lists ids and skipped.
        advance: Told after each batch how many passes over one prompt are done, found ones too.
    """
    rank, world = share
    chunks = cut(prompts, features, reader.dimension)
    kind: Kind = "F16" if features.normalise else "F32"
    path, notes = folder / NAME, folder / CHECKPOINT
    notes.mkdir(parents=True, exist_ok=True)
    with Lease(notes / "lease"):
        progress = _Progress(notes, rank, _plan(chunks, reader.dimension, kind))
        if not _fits(path, len(prompts), reader.dimension, kind):
            create(path, len(prompts), reader.dimension, kind)
            progress.forget()
    done = progress.read()
    lost = [n for n in done if n % world == rank and _sum(path, chunks[n]) != done[n].sha256]
    if lost:
        log.warning(
            "%s: %s chunks are not as they were written, and are made anew", path, len(lost)
        )
        progress.drop(lost)
        done = progress.read()
    for number in range(rank, len(chunks), world):
        places = np.array(list(chain.from_iterable(chunks[number])))
        if number in done:
            advance(len(places) * reader.rounds)
            continue
        rows, fine = reader([[prompts[i] for i in batch] for batch in chunks[number]], advance)
        rows, fine = finish(rows, fine, features.normalise)
        write_rows(path, places, rows.numpy())
        skipped = places[~fine.numpy()].tolist()
        progress.record(number, Done(skipped, _sum(path, chunks[number])))
    done = progress.read()
    if len(done) == len(chunks):
        missing = sorted(chain.from_iterable(each.skipped for each in done.values()))
        write_json(folder / SKIPPED, {prompts[i].id: i for i in missing})
        write_json(folder / IDS, [prompt.id for prompt in prompts])


def read_skipped(folder: Path) -> list[str]:
    """Ids of the prompts without a feature, in the order of the rows."""
    found: dict[str, int] = read_json(folder / SKIPPED)
    return sorted(found, key=found.__getitem__)


def cut(prompts: Sequence[Encoded], features: Features, d: int) -> list[Chunk]:
    """Batches of like length, longest first, in chunks of some prompts, which do not depend on who makes them."""
    lengths = [len(prompt.prompt) for prompt in prompts]
    most = max(1, min(CHUNK, max(LEAST, len(prompts) // PARTS), CHUNK_BYTES // (4 * d)))
    chunks: list[Chunk] = []
    room = 0
    for batch in by_tokens(lengths, min(features.batch_size, most), features.batch_tokens):
        if len(batch) > room:
            chunks.append([])
            room = most
        chunks[-1].append(batch)
        room -= len(batch)
    return chunks


class Done(NamedTuple):
    """A finished chunk: its prompts without a feature, and the checksum of its rows."""

    skipped: list[int]
    sha256: str


class _Progress:
    """Which chunks are done: a file per process, beside the file of the features.

    Args:
        folder: Of the files.
        rank: Whose file is written.
        plan: What the chunks are; files of another plan count for nothing.
    """

    def __init__(self, folder: Path, rank: int, plan: str) -> None:
        self.folder, self.plan = folder, plan
        self.path = folder / ("extract.json" if rank == 0 else f"extract-{rank}.json")
        self.own = self._read(self.path)

    def read(self) -> dict[int, Done]:
        """Every finished chunk, whoever made it."""
        found: dict[int, Done] = {}
        for path in self.folder.glob("extract*.json"):
            found |= self._read(path)
        return found

    def record(self, number: int, done: Done) -> None:
        self.own[number] = done
        self._write(self.path, self.own)

    def drop(self, numbers: Sequence[int]) -> None:
        """Those chunks are not done after all, whoever made them."""
        for path in self.folder.glob("extract*.json"):
            self._write(path, {n: d for n, d in self._read(path).items() if n not in numbers})
        self.own = self._read(self.path)

    def _write(self, path: Path, done: dict[int, Done]) -> None:
        rows = {str(number): list(each) for number, each in done.items()}
        write_json(path, {"plan": self.plan, "done": rows})

    def forget(self) -> None:
        """The file of the features is new: what was noted is not in it."""
        self.own = {}
        for path in self.folder.glob("extract*.json"):
            path.unlink()

    def _read(self, path: Path) -> dict[int, Done]:
        try:
            noted = read_json(path)
            if noted["plan"] != self.plan:
                return {}
            return {int(n): Done(list(places), sha) for n, (places, sha) in noted["done"].items()}
        except (StoreError, KeyError, TypeError, AttributeError, ValueError):
            return {}  # not there, or not to be read: the chunks are made again


def _sum(path: Path, chunk: Chunk) -> str:
    """SHA-256 of a chunk's rows as they stand in the file."""
    rows = open_features(path)[list(chain.from_iterable(chunk))]
    return sha256_of(rows.tobytes()).hexdigest()


def _plan(chunks: list[Chunk], d: int, kind: Kind) -> str:
    """SHA-256 of all that a chunk's number stands for."""
    digest = sha256_of(json.dumps([d, kind]))
    for chunk in chunks:
        digest.update(json.dumps(chunk).encode())
    return digest.hexdigest()


def _fits(path: Path, n: int, d: int, kind: Kind) -> bool:
    try:
        return open_features(path, n, d).dtype == (np.float16 if kind == "F16" else np.float32)
    except ElreaError:
        return False


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
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + nbytes)


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
