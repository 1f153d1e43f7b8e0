"""The new folder that a command writes: where it may be, and that nothing is left of it after an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from elrea.errors import ConfigError, DataError
from elrea.method.ensemble.folder import ENSEMBLE
from elrea.store.files import PARTIAL, publish


def check_out(out: Path, sources: Iterable[Path] = ()) -> None:
    """Refuses a folder that is there already, or a part of it from an interrupted command.

    Args:
        out: The folder to write.
        sources: PEFT folders that are read.

    Raises:
        ConfigError: It exists, or is inside an ensemble or a source.
        DataError: Its part exists.
    """
    check_outside(out, sources)
    if out.exists():
        raise ConfigError(f"{out}: exists already; name another folder")
    if out.is_symlink():
        raise ConfigError(f"{out}: is a link to nothing; remove it, or name another folder")
    aside = out.with_name(f"{out.name}{PARTIAL}")
    if aside.exists() or aside.is_symlink():
        raise DataError(f"{aside} exists already, perhaps from an interrupted command; remove it")


def check_outside(out: Path, sources: Iterable[Path] = ()) -> None:
    """Refuses a place inside an ensemble's folder, which lists all that is in it, or inside a source.

    Raises:
        ConfigError: It is inside one.
    """
    read = {os.path.realpath(source) for source in sources}
    for place in Path(os.path.realpath(out)).parents:
        if str(place) in read or (place / ENSEMBLE).is_file():
            raise ConfigError(
                f"{out}: is inside {place}, which could not be read with more in it; name a place outside"
            )


def publish_new(out: Path, write: Callable[[Path], None]) -> None:
    """As `publish`, for a folder that is not there yet: after an error nothing is left of it."""
    try:
        publish(out, write)
    except Exception:  # a full disk has a class of its own in each library
        shutil.rmtree(out.with_name(f"{out.name}{PARTIAL}"), ignore_errors=True)
        raise
