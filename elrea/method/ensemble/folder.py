"""Reads and verifies an ensemble's folder without loading a model; importing this module does not import torch."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from elrea.errors import StoreError
from elrea.store.files import read_with_checksum, sha256, walk

FORMAT, SERVED_FORMAT = 1, 2
"""Versions of the folder's layout: 2 names the strategy that it answers by, which earlier versions would pass over."""

ENSEMBLE = "ensemble.json"

FREE = frozenset({"README.md", ".gitattributes"})
"""Files that nothing reads: one that the list leaves out may be there or not, as in a copy from the hub."""

STEERING = "steered"
"""Key of `ensemble.json` that says how the members of an adapter which clusters steer are mixed. Its base adapter is
there for the routing alone."""

SERVED, GATE = "strategy", "gate"
"""Keys of `ensemble.json`: the strategy that the ensemble answers by, where it is not ELREA's, and what dev said of
each cluster, where dev decided it."""


def read_facts(folder: Path) -> dict[str, Any]:
    """The contents of `ensemble.json`, which carries its own checksum; the other files are not read.

    Raises:
        StoreError: There is no ensemble in the folder, or `ensemble.json` is damaged or of another version, or names a
            file or member that would lie elsewhere than directly at its name in the folder.
    """
    path = folder / ENSEMBLE
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; give a run's, as outputs/<day>/<time>")
    if not path.is_file() and (folder / "routing.json").is_file():
        raise StoreError(
            f"{folder}: an export, which has adapters but no ensemble.json; give the run that it was made from, or "
            "its adapters' folders to elrea merge"
        )
    if not path.is_file() and (folder / "summary.json").is_file():
        raise StoreError(
            f"{folder}: its strategy needs no ensemble, or answers by the right answers or the sources: there is none "
            "to use; give a run with another ensemble="
        )
    if not path.is_file() and (folder / "sweep.json").is_file():
        raise StoreError(
            f"{folder}: the folder of a sweep; give one of its jobs, as {folder / '0'}"
        )
    if not path.is_file():
        raise StoreError(f"{folder}: no ensemble.json there; give the folder of a finished run")
    facts = read_with_checksum(path)
    try:
        wanted = SERVED_FORMAT if SERVED in facts else FORMAT
        if facts["format"] != wanted:
            raise StoreError(
                f"{path}: format {facts['format']!r} is not {wanted}, which this version reads"
            )
        names, members = list(facts["files"].keys()), list(facts.get("members", ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: not in the form that this version writes ({error!r})") from error
    for name in names:
        if not _is_plain(name):
            raise StoreError(f"{path}: {name!r} is outside the folder, or not in its shortest form")
    for name in members:
        if not _is_plain(str(name)) or "/" in str(name):
            raise StoreError(f"{path}: its members are {members}; {name!r} is not a folder's name")
    return facts


def _is_plain(name: str) -> bool:
    """Whether a name is a place in any folder that it is put behind, as those that are written to."""
    path = PurePosixPath(name)
    plain = path.parts and ".." not in path.parts and not path.is_absolute()
    return bool(plain) and path.as_posix() == name and "\\" not in name and "\0" not in name


def checked(folder: Path) -> dict[str, Any]:
    """The contents of `ensemble.json`, after a check of every file in the folder.

    Raises:
        StoreError: As `read_facts`; or a file is missing, damaged, not listed, or outside the folder.
    """
    facts = read_facts(folder)
    try:
        _check(folder, {str(name): str(digest) for name, digest in facts["files"].items()})
    except (TypeError, ValueError, AttributeError, OSError) as error:
        path = folder / ENSEMBLE
        raise StoreError(f"{path}: not in the form that this version writes ({error!r})") from error
    return facts


def _check(folder: Path, files: dict[str, str]) -> None:
    """Compares the folder with the list: every file is inside the folder and unchanged, and no other is there."""
    for name, expected in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StoreError(f"{folder / ENSEMBLE}: {name!r} is outside the folder")
        if not path.is_file():
            raise StoreError(f"{path} is missing; copy the ensemble again")
        if sha256(path) != expected:
            raise StoreError(f"{path}: checksum mismatch; copy the ensemble again")
    for path in walk(folder):
        name = path.relative_to(folder).as_posix()
        if name not in files and name not in (ENSEMBLE, *FREE):
            raise StoreError(f"{path} does not belong to the ensemble; remove it")
