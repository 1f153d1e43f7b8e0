"""Folders that are either whole or not there: written aside, forced to disk, renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from elrea.files import sync


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside `folder`, then rename it into place.

    A process killed at any moment leaves the old `folder`, none, or the new one, never a part
    of it. Everything reaches the disk before the name does, which holds for a power cut too.

    Args:
        folder: the folder to make; an older one of that name is replaced.
        write: called once with the folder to fill.

    Raises:
        OSError: no space left, or no permission.
    """
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    for path in sorted(aside.rglob("*")):
        sync(path)
    sync(aside)
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)
    sync(folder.parent)
