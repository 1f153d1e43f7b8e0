"""What each stage of the method made, kept on disk and reused.

A stage's key is a hash of its name, its version and everything that can change what it makes. Its
files are made in `<root>/<name>/<key>.partial`, under a lock, and renamed to `<root>/<name>/<key>`
when they are whole; `manifest.json` there holds every file's checksum. So a folder of that name is
finished, whatever was killed when, and a killed stage finds its `.partial` folder again, with the
checkpoints that were left in it.
"""

from __future__ import annotations

import functools
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from elrea import manifest
from elrea.errors import StoreError
from elrea.files import is_disk_full, jsonable, key_of, read_json, sync, write_json

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
        return self.folder.is_dir() and self._whole(self.folder)

    def run(self, make: Callable[[Path], None]) -> Path:
        """Reuses the finished files, or has `make` write them; one process at a time.

        Args:
            make: writes its files into the folder that it is given. After a kill it is called
                again with that folder as it was left, and goes on from what it finds there.
                Folders in it named `checkpoint`, at any depth, are dropped when it has returned.

        Returns:
            The finished stage's folder.

        Raises:
            StoreError: no space left, or the store cannot be written.
        """
        self.reused = self.done()
        if self.reused:
            return self.folder
        try:
            with self._lock():
                self.reused = self.done()  # another process may have made it meanwhile
                if not self.reused:
                    self._make(make)
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise StoreError(
                f"no space left for stage {self.name} in {self.folder.parent}: "
                "free some, and the same command goes on from there"
            ) from error
        return self.folder

    def _make(self, make: Callable[[Path], None]) -> None:
        work, damaged = self._beside("partial"), self._beside("damaged")
        if self.folder.exists():
            shutil.rmtree(damaged, ignore_errors=True)
            self.folder.rename(damaged)
        # A whole work folder: the last try was killed between the making and the rename.
        if not ((work / manifest.MANIFEST).exists() and self._whole(work)):
            work.mkdir(exist_ok=True)
            (work / manifest.MANIFEST).unlink(missing_ok=True)
            with self._clock(work) as seconds:
                make(work)
                identity = {"name": self.name, "version": self.version, "key": self.key}
                manifest.write(work, {**identity, "inputs": self.inputs}, seconds())
        for checkpoint in list(work.rglob(manifest.CHECKPOINT)):
            if checkpoint.is_dir():
                shutil.rmtree(checkpoint)
        work.rename(self.folder)
        sync(self.folder.parent)
        self._beside("tries.json").unlink(missing_ok=True)
        shutil.rmtree(damaged, ignore_errors=True)
        self.seconds = manifest.verify(self.folder, self.name, self.key)

    def _whole(self, folder: Path) -> bool:
        try:
            self.seconds = manifest.verify(folder, self.name, self.key)
        except StoreError as error:
            _warn(f"stage {self.name} is damaged and has to be made again: {error}")
            return False
        return True

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Holds this stage alone among processes; the system frees it when its holder is killed."""
        lock = FileLock(self._beside("lock"))
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("stage %s is being made by another process: waiting for it", self.name)
                lock.acquire()
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(
                f"cannot write to {error.filename or self.folder.parent}: {reason}"
            ) from error
        try:
            yield
        finally:
            lock.release()

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


@functools.cache
def _warn(line: str) -> None:
    """Logs a line once a process: the plan finds the same damage as the run after it."""
    log.warning("%s", line)
