"""The manifest of a finished stage: what it is, and every file's size and SHA-256."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.store.files import read_sealed, seal, sha256, sync, walk, write_json
from elrea.version import __version__

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint"  # folders of this name, at any depth, hold what only resuming needs

# Recorded so that a difference can be traced; not part of any key.
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

# Folder -> file -> size, time, inode and SHA-256 at which this process verified it.
_verified: dict[Path, dict[str, tuple[int, int, int, str]]] = {}


def write(folder: Path, identity: dict[str, Any], seconds: float) -> None:
    """Lists what stands in `folder`, all but its checkpoints, and has it written to the disk.

    Args:
        folder: of a stage that has made all its files.
        identity: the stage's `name`, `version`, `key` and `inputs`.
        seconds: what making it took.

    Raises:
        StoreError: there is a link, or a manifest that the stage made itself.
    """
    if (folder / MANIFEST).exists():
        raise StoreError(f"{folder / MANIFEST}: that name is the store's own")
    files = {}
    for path in walk(folder):
        rel = path.relative_to(folder)
        if CHECKPOINT not in rel.parent.parts:
            sync(path)
            sync(path.parent)
            files[rel.as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"files": files, "seconds": round(seconds, 3), "made": made, "versions": versions()}
    # Last of all: where a manifest is, what it lists is on the disk.
    write_json(folder / MANIFEST, seal({**identity, **facts}))
    sync(folder)


def verify(folder: Path, name: str, key: str) -> float:
    """Holds a folder against its manifest.

    Checksums are computed once a process, and again for a file that changed since.

    Returns:
        The seconds that making it took.

    Raises:
        StoreError: what is wrong, naming the file.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder} is no folder")
    path = folder / MANIFEST
    manifest = read_sealed(path)
    try:
        owner = (manifest["name"], manifest["key"])
        listed = {rel: (int(f["bytes"]), str(f["sha256"])) for rel, f in manifest["files"].items()}
        seconds = float(manifest["seconds"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"{path} lacks what a manifest holds") from error
    if owner != (name, key):
        raise StoreError(f"{path} belongs to stage {owner[0]}/{owner[1]}")
    verified = _verified.setdefault(folder, {})
    for rel, (size, digest) in listed.items():
        path = folder / rel
        try:
            stat = path.stat()
            if stat.st_size != size:
                raise StoreError(f"{path} has {stat.st_size} bytes, not {size}")
            state = (size, stat.st_mtime_ns, stat.st_ino, digest)
            if verified.get(rel) != state and sha256(path) != digest:
                raise StoreError(f"{path} has changed: its SHA-256 is another")
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error
        verified[rel] = state
    return seconds


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python, this package and the installed libraries that can change a number."""
    found = {"python": platform.python_version(), "elrea": __version__}
    for library in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found
