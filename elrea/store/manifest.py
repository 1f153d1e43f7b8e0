"""Writes and verifies the manifest of a finished stage: its identity, and every file's size and SHA-256."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.store.files import (
    read_with_checksum,
    sha256,
    share,
    sync,
    walk,
    with_checksum,
    write_json,
)
from elrea.version import __version__

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint"
"""Folders of this name, at any depth, are needed for resuming only, and are not listed in the manifest."""

# Their versions are recorded to explain differences; they are not part of any key.
LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "pytorch-lightning",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "faiss-cpu",
)

# By folder and file: the size, time, inode and SHA-256 with which this process verified the file.
_verified: dict[Path, dict[str, tuple[int, int, int, str]]] = {}


def write(folder: Path, identity: dict[str, Any], seconds: float) -> None:
    """Flushes a stage's files to the disk and lists them, except checkpoints, in its manifest.

    Args:
        folder: Of a stage that has made all its files.
        identity: The stage's `name`, `version`, `key` and `inputs`.
        seconds: How long it took to make the stage.

    Raises:
        StoreError: There is a link, or the stage made a file with the manifest's name.
    """
    if (folder / MANIFEST).exists():
        raise StoreError(
            f"{folder / MANIFEST}: a stage may not write this file, the name is reserved"
        )
    files = {}
    for path in walk(folder):
        rel = path.relative_to(folder)
        if CHECKPOINT not in rel.parent.parts:
            share(path)
            sync(path)
            sync(path.parent)
            files[rel.as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"files": files, "seconds": round(seconds, 3), "made": made, "versions": versions()}
    # The manifest comes last, so that all files it lists are on the disk.
    write_json(folder / MANIFEST, with_checksum({**identity, **facts}))
    sync(folder)


def verify(folder: Path, name: str, key: str) -> float:
    """Compares a folder with its manifest.

    A file's checksum is computed once per process, and again if the file has changed since.

    Args:
        folder: Of a finished stage.
        name, key: The stage's.

    Returns:
        How long it took to make the stage, in seconds.

    Raises:
        StoreError: The name of the file and how it differs.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder} is not a folder")
    path = folder / MANIFEST
    manifest = read_with_checksum(path)
    try:
        owner = (manifest["name"], manifest["key"])
        listed = {rel: (int(f["bytes"]), str(f["sha256"])) for rel, f in manifest["files"].items()}
        seconds = float(manifest["seconds"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"{path} is not a complete manifest ({error!r})") from error
    if owner != (name, key):
        raise StoreError(f"{path} belongs to stage {owner[0]}/{owner[1]}")
    verified = _verified.setdefault(folder, {})
    for rel, (size, digest) in listed.items():
        path = folder / rel
        try:
            stat = path.stat()
            if stat.st_size != size:
                raise StoreError(f"{path} has {stat.st_size} bytes instead of {size}")
            state = (size, stat.st_mtime_ns, stat.st_ino, digest)
            if verified.get(rel) != state and sha256(path) != digest:
                raise StoreError(f"{path}: checksum mismatch (SHA-256): the file was changed")
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error
        verified[rel] = state
    return seconds


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python, this package and the installed libraries that can change results."""
    found = {"python": platform.python_version(), "elrea": __version__}
    for library in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found
