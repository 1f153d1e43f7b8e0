"""Removes the folder that Hydra made for a job which makes nothing: a plan, or a job that is refused."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

LOG = "run.log"
"""The log of a job, as conf/hydra/job_logging names it."""


def missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist yet, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def clear(folder: Path, names: Collection[str], made: Collection[Path]) -> None:
    """Removes a folder in which there is nothing but files of these names; any other one stays as it is.

    Args:
        folder: Of a job or a sweep.
        names: Of the files and folders in it that nobody needs without results.
        made: Folders that did not exist before, the innermost first (`missing`); the empty ones are removed.
    """
    with suppress(OSError):  # read-only, or removed meanwhile
        there = list(folder.iterdir())
        if not {path.name for path in there} <= set(names):
            return
        for path in there:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in made:
            path.rmdir()
