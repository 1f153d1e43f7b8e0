"""Reads the `.wandb` file of an offline W&B run; wandb itself has no public reader for it.

The file is a LevelDB log (https://github.com/google/leveldb/blob/main/doc/log_format.md): blocks
of 32 KiB that hold chunks of 7 bytes of header (CRC-32 of type and data, length, type) and data;
a record is one "full" chunk or a "first", any "middle" and a "last". W&B puts 7 bytes of its own
before the first chunk, and each record is one protobuf `Record`.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class Run:
    """Contents of an offline run.

    Attributes:
        folder: the run's folder.
        id: the run's id.
        info: project, entity, group, name, tags, host, start (ns) as recorded.
        config: the configuration.
        history: the logged rows, in order.
        metrics: step axis by metric name or pattern (None for an axis itself).
        summary: the last value of every summary metric.
        artifacts: metadata by name, with `type` and the `reference` of its only entry.
        exit_code: None if the run was never finished.
    """

    folder: Path
    id: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, str | None] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    exit_code: int | None = None

    def column(self, name: str) -> list[Any]:
        """All logged values of a metric."""
        return [row[name] for row in self.history if name in row]

    def media(self, name: str) -> Path:
        """The file behind a logged table or image."""
        return self.folder / "files" / self.column(name)[-1]["path"]

    def table(self, name: str) -> dict[str, Any]:
        """`columns` and `data` of a logged table."""
        loaded: dict[str, Any] = json.loads(self.media(name).read_text())
        return loaded


def runs(folder: Path, wait: float = 20.0) -> list[Run]:
    """All offline runs below `folder`/wandb, in the order of their start.

    `finish()` returns a moment before wandb's own process has written the file's end: waits up to
    `wait` seconds until each run has its last record.
    """
    until = time.monotonic() + wait
    while True:
        found = folder.glob("wandb/offline-run-*/run-*.wandb")
        loaded = [read(path) for path in found]
        if all(run.exit_code is not None for run in loaded) or time.monotonic() > until:
            return sorted(loaded, key=lambda run: run.info.get("started", 0))
        time.sleep(0.1)


def read(path: Path) -> Run:
    """Reads one `.wandb` file."""
    from wandb.proto import wandb_internal_pb2 as pb

    run = Run(folder=path.parent)
    for data in _records(path.read_bytes()):
        record: Any = pb.Record()  # type: ignore[attr-defined]
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            sent = record.run
            run.id = sent.run_id
            run.info = {
                "project": sent.project,
                "entity": sent.entity,
                "group": sent.run_group,
                "name": sent.display_name,
                "tags": list(sent.tags),
                "host": sent.host,
                "started": sent.start_time.ToNanoseconds(),
            }
            run.config.update(_items(sent.config.update))
        elif kind == "config":
            run.config.update(_items(record.config.update))
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary.update(_items(record.summary.update))
        elif kind == "metric":
            metric = record.metric
            run.metrics[metric.name or metric.glob_name] = metric.step_metric or None
        elif kind == "artifact":
            sent = record.artifact
            for entry in sent.manifest.contents:
                if entry.ref:  # a table is an artifact too, with a file
                    facts = {"type": sent.type, "reference": entry.ref}
                    run.artifacts[sent.name] = {**json.loads(sent.metadata), **facts}
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    """Converts W&B's key-value items to nested mappings."""
    tree: dict[str, Any] = {}
    for item in items:
        *parents, last = item.nested_key or [item.key]
        place = tree
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return tree


def _records(data: bytes) -> Iterator[bytes]:
    if len(data) < 7:
        return
    magic, number, version = struct.unpack_from("<4sHB", data)
    assert (magic, number, version) == (b":W&B", 0xBEE1, 0), "not a .wandb file of version 0"
    place, parts = 7, b""
    while place + _HEADER.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER.size:  # a header never spans blocks: the rest is padding
            place += left
            continue
        checksum, length, kind = _HEADER.unpack_from(data, place)
        place += _HEADER.size
        if kind == 0:  # the zeros of a block that was never filled
            place += left - _HEADER.size
            continue
        if place + length > len(data):
            return  # still being written, or killed while it was
        chunk = data[place : place + length]
        place += length
        assert zlib.crc32(bytes([kind]) + chunk) == checksum, f"damaged before byte {place}"
        parts = chunk if kind in (_FULL, _FIRST) else parts + chunk
        if kind in (_FULL, _LAST):
            yield parts
