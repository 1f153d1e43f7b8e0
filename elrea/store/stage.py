"""What each stage of the method made, kept on disk and reused.

A stage's key is a hash of its name, its version and everything that can change what it makes. Its
files are made in `<root>/<name>/<key>.<holder>.partial`, under a lease (lease.py), and renamed to
`<root>/<name>/<key>` when they are whole; `manifest.json` there holds every file's checksum. So a
folder of that name is finished, whatever was killed when. Who makes a stage after a killed process
renames that one's `.partial` folder to its own name and goes on from the checkpoints in it; a
process that was only suspended then finds its folder gone, and cannot publish what it made.

`elrea store ls|verify|gc` looks after it all.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.store import manifest
from elrea.store.files import (
    drop_asides,
    is_disk_full,
    jsonable,
    key_of,
    read_json,
    sync,
    write_json,
)
from elrea.store.lock import Lease, look

__all__ = ["Stage", "Store", "read_json", "write_json"]

log = logging.getLogger(__name__)


class Store:
    """A folder of finished stages that runs, and processes, share."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    def stage(self, name: str, version: int, inputs: Mapping[str, Any]) -> Stage:
        """Names a stage by what goes into it; nothing is read or written yet.

        Args:
            name: what is made, say "features"; a folder of that name holds it.
            version: raised whenever the code makes something else of the same inputs.
            inputs: plain JSON that holds all that can change the output and nothing else.

        Raises:
            StoreError: the name cannot name a folder, or `inputs` is no finite JSON.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise StoreError(f"stage {name!r}: a name is made of a-z, 0-9, _ and -")
        try:
            return Stage(self.root, name, version, jsonable(inputs))
        except StoreError as error:
            raise StoreError(f"inputs of stage {name}: {error}") from error


class Stage:
    """One thing to make once.

    Attributes:
        name, version, inputs: what the key is made of.
        key: 16 hexadecimal digits.
        folder: where the finished files are; `done` says whether they are.
        seconds: what making it took, over all tries; 0 until `done` or `run` has found out.
        reused: whether the last `run` found it finished.
    """

    def __init__(self, root: Path, name: str, version: int, inputs: dict[str, Any]) -> None:
        self.name, self.version, self.inputs = name, version, inputs
        self.key = key_of({"name": name, "version": version, "inputs": inputs})
        self.folder = root / name / self.key
        self.seconds = 0.0
        self.reused = False

    def __repr__(self) -> str:
        return f"Stage({self.name}/{self.key})"

    def done(self) -> bool:
        """Whether it is finished and whole: every file there, of the right size and SHA-256.

        Nothing on disk changes: damage is logged with the file's name, and `run` rebuilds.
        """
        return os.path.lexists(self.folder) and self._whole(self.folder)

    def run(self, make: Callable[[Path], None]) -> Path:
        """Reuses the finished files, or has `make` write them; one process at a time.

        Args:
            make: writes its files into the folder that it is given. After a kill it is called
                again with that folder as it was left, and goes on from what it finds there.
                Folders in it named `checkpoint`, at any depth, are dropped when it has returned.

        Returns:
            The finished stage's folder.

        Raises:
            StoreError: no space left, the store cannot be written, or this process was suspended
                for so long that another makes the stage in its place.
        """
        self.reused = self.done()
        if self.reused:
            self._tidy()
            with suppress(OSError):  # a store that may only be read
                os.utime(self.folder / manifest.MANIFEST)  # `gc` sees when it was used last
            return self.folder
        try:
            with self._held() as lease:
                self.reused = self.done()  # another process may have made it meanwhile
                if not self.reused:
                    self._make(make, lease)
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise StoreError(
                f"no space left for stage {self.name} in {self.folder.parent}: "
                "free some, and the same command goes on from there"
            ) from error
        return self.folder

    def _make(self, make: Callable[[Path], None], lease: Lease) -> None:
        work, damaged = self._beside(f"{lease.token}.partial"), self._beside("damaged")
        if os.path.lexists(self.folder):  # a file and a link that leads nowhere, too
            _drop(damaged)
            self.folder.rename(damaged)
        for left in sorted(self._left(".partial"), key=lambda path: path.stat().st_mtime):
            # There are several where a holder lost its lease: the newest is kept.
            shutil.rmtree(work, ignore_errors=True)
            left.rename(work)
        # A whole work folder: the last try was killed between the making and the rename.
        if not ((work / manifest.MANIFEST).exists() and self._whole(work)):
            work.mkdir(exist_ok=True)
            (work / manifest.MANIFEST).unlink(missing_ok=True)
            drop_asides(work)
            with self._clock(work) as seconds:
                make(work)
                identity = {"name": self.name, "version": self.version, "key": self.key}
                manifest.write(work, {**identity, "inputs": self.inputs}, seconds())
        for checkpoint in list(work.rglob(manifest.CHECKPOINT)):
            if checkpoint.is_dir():
                shutil.rmtree(checkpoint)
        lease.check()
        work.rename(self.folder)
        sync(self.folder.parent)
        self._clear()
        self.seconds = manifest.verify(self.folder, self.name, self.key)

    def _clear(self) -> None:
        """Removes what the making needed and nobody does any more; only for who holds the lease."""
        for path in self._left():
            if path.is_dir() or path.suffix != ".lease":
                _drop(path)

    def _tidy(self) -> None:
        """Clears up after a process that was killed when it had just made the stage."""
        lease = Lease(self._beside("lease"))
        held = look(lease.path)
        with suppress(OSError):  # a store that may only be read
            if self._left() and (held is None or held.alive is False) and lease.acquire(wait=False):
                if self.folder.is_dir():
                    self._clear()
                lease.release()

    def _left(self, ending: str = "") -> list[Path]:
        """What stands beside the folder, half-written notes (`.<key>.tries.json.<pid>.tmp`) among it."""
        beside = self.folder.parent
        return [*beside.glob(f"{self.key}.*{ending}"), *beside.glob(f".{self.key}.*{ending}")]

    def _whole(self, folder: Path) -> bool:
        try:
            self.seconds = manifest.verify(folder, self.name, self.key)
        except StoreError as error:
            _warn(f"stage {self.name} is damaged and has to be made again: {error}")
            return False
        return True

    @contextmanager
    def _held(self) -> Iterator[Lease]:
        """Holds this stage alone among processes, on whatever machine."""
        line = "stage %s is being made by another process: waiting for it"
        lease = Lease(self._beside("lease"), lambda: log.info(line, self.name))
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lease.acquire()
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(
                f"cannot write to {error.filename or self.folder.parent}: {reason}"
            ) from error
        try:
            yield lease
        except Exception:
            lease.check()  # with its folder gone, any other error is no wonder
            raise
        finally:
            lease.release()

    @contextmanager
    def _clock(self, work: Path) -> Iterator[Callable[[], float]]:
        """Counts the seconds of this try on top of earlier ones, those of a killed one too.

        A killed try leaves no end time: the last change of a file in `work` stands for it.
        """
        notes = self._beside("tries.json")
        earlier = 0.0
        if notes.exists():
            with suppress(StoreError, KeyError, TypeError):  # a guess is not worth failing for
                tries = read_json(notes)
                last = max((path.stat().st_mtime for path in work.rglob("*")), default=0.0)
                earlier = tries["seconds"] + max(0.0, last - tries["started"])
        write_json(notes, {"seconds": earlier, "started": time.time()})
        start = time.monotonic()
        try:
            yield lambda: earlier + time.monotonic() - start
        except BaseException:
            known = {"seconds": earlier + time.monotonic() - start, "started": time.time()}
            with suppress(StoreError):  # the error under way matters more
                write_json(notes, known)
            raise

    def _beside(self, suffix: str) -> Path:
        return self.folder.with_name(f"{self.key}.{suffix}")


def _drop(path: Path) -> None:
    """Removes a folder, a file or a link; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@functools.cache
def _warn(line: str) -> None:
    """Logs a line once a process: the plan finds the same damage as the run after it."""
    log.warning("%s", line)
