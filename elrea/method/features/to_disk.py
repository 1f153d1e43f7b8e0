"""Writes the features of many prompts to a file, chunk by chunk, and reads that file.

`stream` needs memory for one chunk only, resumes a killed run after the last finished chunk, and lets several processes
share the chunks. The file is a safetensors file, written and mapped in place here: the safetensors library writes whole
tensors from memory, and cannot write rows to a file.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from elrea.data.batches import by_tokens
from elrea.errors import DataError, ElreaError, StoreError
from elrea.method.features.base import Advance, Features, Reader, finish
from elrea.store.files import atomic_file, read_json, sha256_of, write_json
from elrea.store.lock import Lease
from elrea.store.manifest import CHECKPOINT

if TYPE_CHECKING:
    from elrea.data.prompts import Encoded

log = logging.getLogger(__name__)

NAME, IDS, SKIPPED = "features.safetensors", "ids.json", "skipped.json"
"""The file of the features, whose only tensor is `features` [n, d]; the prompts' ids; the prompts without a feature."""

DTYPES = {"F16": "<f2", "F32": "<f4"}
"""Types by safetensors' names and by numpy's: half precision for rows of length 1, single precision for others."""

Kind = Literal["F16", "F32"]

LONGEST_HEADER = 100_000
"""Longest header that is read, in bytes: those written here have about 100."""

CHUNK = 2_048
"""Approximate largest number of prompts in a chunk: a killed run loses at most one chunk per process."""

PARTS, LEAST = 16, 256
"""There are at least PARTS chunks if each then has LEAST prompts, so that several processes can share them."""

CHUNK_BYTES = 64 << 20
"""Largest size of a chunk's rows in float32: with many dimensions a chunk has fewer prompts."""

Chunk = list[list[int]]
"""Batches of the prompts' numbers."""


def stream(
    folder: Path,
    prompts: Sequence[Encoded],
    features: Features,
    reader: Reader,
    *,
    share: tuple[int, int] = (0, 1),
    advance: Advance = lambda _n: None,
) -> None:
    """Writes every prompt's feature, or resumes where a killed run stopped.

    Writes `features.safetensors` (rows in the prompts' order; float16 for rows of length 1, else float32), `ids.json`
    (their ids) and `skipped.json` (id -> row of prompts without a feature, whose rows are zeros). The bytes depend
    neither on interruptions nor on the number of processes.

    Args:
        folder: Where to write; several processes may share it. `checkpoint/` in it holds the progress.
        prompts: At least one.
        features: Batch sizes, and whether features are normalised.
        reader: Computes the features.
        share: (rank, world): this process computes every world-th chunk. The last process writes ids and skipped.
        advance: Called after each batch with the number of finished passes over one prompt; also for reused chunks.
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
    damaged = [n for n in done if n % world == rank and _sum(path, chunks[n]) != done[n].sha256]
    if damaged:
        log.warning(
            "%s: checksum mismatch in %s chunks, which are computed again", path, len(damaged)
        )
        progress.drop(damaged)
        done = progress.read()
    for number in range(rank, len(chunks), world):
        places = np.array(list(chain.from_iterable(chunks[number])))
        if number in done:
            advance(len(places) * reader.rounds)
            continue
        rows, valid = reader([[prompts[i] for i in batch] for batch in chunks[number]], advance)
        rows, valid = finish(rows, valid, features.normalise)
        write_rows(path, places, rows.numpy())
        skipped = places[~valid.numpy()].tolist()
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
    """Groups the prompts into batches of similar length, longest first, and the batches into chunks.

    The chunks depend on the prompts, on the features' batch sizes and on d only, not on the number of processes.
    """
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
    """A finished chunk: the numbers of its prompts without a feature, and the checksum of its rows."""

    skipped: list[int]
    sha256: str


class _Progress:
    """The finished chunks, in a JSON file per process.

    Args:
        folder: Folder of the files.
        rank: Number of the process whose file is written.
        plan: Checksum of the chunks; files with another one are ignored.
    """

    def __init__(self, folder: Path, rank: int, plan: str) -> None:
        self.folder, self.plan = folder, plan
        self.path = folder / ("extract.json" if rank == 0 else f"extract-{rank}.json")
        self.written = self._read(self.path)

    def read(self) -> dict[int, Done]:
        """The finished chunks of all processes."""
        found: dict[int, Done] = {}
        for path in self.folder.glob("extract*.json"):
            found |= self._read(path)
        return found

    def record(self, number: int, done: Done) -> None:
        """Adds a finished chunk to this process' file."""
        self.written[number] = done
        self._write(self.path, self.written)

    def drop(self, numbers: Sequence[int]) -> None:
        """Removes chunks from the files of all processes."""
        for path in self.folder.glob("extract*.json"):
            self._write(path, {n: d for n, d in self._read(path).items() if n not in numbers})
        self.written = self._read(self.path)

    def _write(self, path: Path, done: dict[int, Done]) -> None:
        rows = {str(number): list(each) for number, each in done.items()}
        write_json(path, {"plan": self.plan, "done": rows})

    def forget(self) -> None:
        """Deletes all progress: the file of the features is new."""
        self.written = {}
        for path in self.folder.glob("extract*.json"):
            path.unlink()

    def _read(self, path: Path) -> dict[int, Done]:
        try:
            progress = read_json(path)
            if progress["plan"] != self.plan:
                return {}
            return {
                int(n): Done(list(places), sha) for n, (places, sha) in progress["done"].items()
            }
        except (StoreError, KeyError, TypeError, AttributeError, ValueError):
            return {}  # missing or damaged: the chunks are computed again


def _sum(path: Path, chunk: Chunk) -> str:
    """SHA-256 of a chunk's rows in the file."""
    rows = open_features(path)[list(chain.from_iterable(chunk))]
    return sha256_of(rows.tobytes()).hexdigest()


def _plan(chunks: list[Chunk], d: int, kind: Kind) -> str:
    """SHA-256 of the chunks, the dimension and the type: progress is valid for the same ones only."""
    digest = sha256_of(json.dumps([d, kind]))
    for chunk in chunks:
        digest.update(json.dumps(chunk).encode())
    return digest.hexdigest()


def _fits(path: Path, n: int, d: int, kind: Kind) -> bool:
    try:
        return open_features(path, n, d).dtype == (np.float16 if kind == "F16" else np.float32)
    except ElreaError:
        return False


def create(path: Path, n: int, d: int, kind: Kind) -> None:
    """Creates a safetensors file of zeros at its full size.

    Args:
        path: The file; an existing one is replaced.
        n: Number of rows.
        d: Number of columns.
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
    """Writes rows to a file that `create` made, and flushes them to the disk.

    The file is not mapped for writing: on a full disk that would end the process without a message.

    Args:
        path: The file.
        rows: Numbers of the rows [m].
        values: The rows [m, d]; converted to the file's type.
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
    """Maps a file of features read-only: [n, d] in float16 or float32.

    Args:
        path: The file.
        n: Expected number of rows; None accepts any.
        d: Expected number of columns; None accepts any.

    Raises:
        StoreError: The file is missing, truncated, or not a file of features.
        DataError: It has another shape.
    """
    entry, start = _header(path)
    try:
        (rows, columns), kind = map(int, entry["shape"]), DTYPES[entry["dtype"]]
        nbytes = rows * columns * np.dtype(kind).itemsize
        if entry["data_offsets"] != [0, nbytes] or min(rows, columns) < 1:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is not a file of features: {entry}") from error
    if (size := path.stat().st_size) != start + nbytes:
        raise StoreError(
            f"{path} has {size} bytes, not {start + nbytes}: it is truncated; delete it and run again"
        )
    if n is not None and rows != n:
        raise DataError(f"{path} holds features of {rows} examples, not {n}: it is of other data")
    if d is not None and columns != d:
        raise DataError(
            f"{path} holds features of {columns} dimensions, not {d}: it is of another projection or model"
        )
    return np.memmap(path, dtype=kind, mode="r", offset=start, shape=(rows, columns))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header's entry of the tensor, and the offset of its bytes."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= LONGEST_HEADER:
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
        raise StoreError(f"{path} is not a file of features: delete it and run again") from error
