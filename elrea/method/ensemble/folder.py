"""Reads and verifies an ensemble's folder without loading a model; importing this module does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.store.files import read_sealed, sha256, walk

FORMAT = 1
"""Version of `ensemble.json`."""


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of `ensemble.json`, which carries its own checksum; the other files are not read.

    Raises:
        StoreError: There is no ensemble in the folder, or `ensemble.json` is damaged or of another version.
    """
    path = folder / "ensemble.json"
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; give a run's, as outputs/<day>/<time>")
    if not path.is_file():
        raise StoreError(f"{folder}: no ensemble.json there; give the folder ensemble/ of a run")
    facts = read_sealed(path)
    try:
        if facts["format"] != FORMAT:
            raise StoreError(
                f"{path}: format {facts['format']!r} is not {FORMAT}, which this version reads"
            )
        facts["files"].items()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: not as this version writes it ({error!r})") from error
    return facts


def checked(folder: Path) -> dict[str, Any]:
    """The content of `ensemble.json`, after every file that it lists was compared with its SHA-256.

    Raises:
        StoreError: As `read_facts`; or a file is missing, damaged, not listed, or outside the folder.
    """
    facts = read_facts(folder)
    try:
        _check(folder, {str(name): str(digest) for name, digest in facts["files"].items()})
    except (TypeError, ValueError, AttributeError, OSError) as error:
        path = folder / "ensemble.json"
        raise StoreError(f"{path}: not as this version writes it ({error!r})") from error
    return facts


def _check(folder: Path, files: dict[str, str]) -> None:
    """Compares every listed file with its SHA-256, and refuses files that are not listed."""
    for name, wanted in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StoreError(f"{folder / 'ensemble.json'}: {name!r} leads out of the folder")
        if not path.is_file():
            raise StoreError(f"{path} is missing; copy the ensemble anew")
        if sha256(path) != wanted:
            raise StoreError(f"{path} is not as it was written; copy the ensemble anew")
    for path in walk(folder):
        name = path.relative_to(folder).as_posix()
        if name not in files and name != "ensemble.json":
            raise StoreError(f"{path} does not belong to the ensemble; remove it")
