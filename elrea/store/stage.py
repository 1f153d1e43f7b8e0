"""The store: makes each stage of the method once, keeps its files on disk, and reuses them.

A stage's key is a hash of its name, its version and everything that can change its output. The process that makes it
holds a lease (lock.py) and writes to `<root>/<name>/<key>.<token>.partial`. When all files are there, they are listed
in `manifest.json` with their checksums, and the folder is renamed to `<root>/<name>/<key>`. So a folder of that name is
always complete, whenever a process was killed.

To resume after a killed process, the next one renames its `.partial` folder and continues from the checkpoints in it.
If the first process was only suspended, it finds its folder gone and cannot publish.

`elrea store ls|verify|gc` lists, verifies and cleans a store.
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
    PARTIAL,
    is_disk_full,
    jsonable,
    key_of,
    read_json,
    remove_temporary_files,
    sync,
    write_json,
)
from elrea.store.lock import Lease, read_lease

log = logging.getLogger(__name__)


class Store:
    """A folder of finished stages, shared by runs, processes and machines."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    def stage(self, name: str, version: int, inputs: Mapping[str, Any]) -> Stage:
        """A stage with these inputs; nothing is read or written yet.

        Args:
            name: What is made, e.g. "features"; also the name of the folder.
            version: Raised whenever the code makes a different output from the same inputs.
            inputs: Plain JSON with everything that can change the output, and nothing else.

        Raises:
            StoreError: The name cannot be a folder's, or `inputs` is not finite JSON.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise StoreError(f"stage {name!r}: use a-z, 0-9, _ and - in a name")
        try:
            return Stage(self.root, name, version, jsonable(inputs))
        except StoreError as error:
            raise StoreError(f"inputs of stage {name}: {error}") from error


class Stage:
    """A step whose output is kept in the store.

    Attributes:
        name, version, inputs: The key is computed from them.
        key: 16 hexadecimal digits.
        folder: Of the finished files; see `done`.
        seconds: How long it took to make, over all attempts; 0 until `done` or `run` has read it.
        reused: Whether the last `run` found the stage finished.
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
        """Whether the stage is finished and every file has the right size and SHA-256.

        Changes nothing on disk: a damaged file is logged, and `run` makes the stage again.
        """
        return os.path.lexists(self.folder) and self._is_intact(self.folder)

    def busy(self) -> bool:
        """Whether another process seems to be making it now."""
        state = read_lease(self._sibling("lease"))
        return state is not None and state.alive is not False and not os.path.lexists(self.folder)

    def run(self, make: Callable[[Path], None]) -> Path:
        """Reuses the finished files, or calls `make` to write them; one process at a time.

        Args:
            make: Writes its files into the folder that it is given. After a kill it is called again with the folder
                as the killed process left it, and resumes from there. Folders named `checkpoint`, at any depth, are
                removed when it has returned.

        Returns:
            The folder of the finished stage.

        Raises:
            StoreError: No space left, the store cannot be written, or this process was suspended for so long that
                another one has taken over the stage.
        """
        self.reused = self.done()
        if self.reused:
            self._clean_if_unused()
            with suppress(OSError):  # the store may be read-only
                os.utime(self.folder / manifest.MANIFEST)  # tells `gc` when it was last used
            return self.folder
        try:
            with self._locked() as lease:
                self.reused = self.done()  # another process may have made it meanwhile
                if not self.reused:
                    work = self._work_folder(lease)
                    if not self._is_complete(work):
                        with self._stopwatch(work) as seconds:
                            make(work)
                            manifest.write(work, self._identity, seconds())
                    self._publish(work, lease)
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise StoreError(
                f"no space left for stage {self.name} in {self.folder.parent}: "
                "free some space and run the same command again; it resumes"
            ) from error
        return self.folder

    @property
    def _identity(self) -> dict[str, Any]:
        """What the manifest says of the stage beside its files."""
        return {"name": self.name, "version": self.version, "key": self.key, "inputs": self.inputs}

    def _work_folder(self, lease: Lease) -> Path:
        """The folder to write to, with what the last attempt left in it; a damaged finished folder is set aside."""
        work, damaged = self._sibling(f"{lease.token}{PARTIAL}"), self._sibling("damaged")
        if os.path.lexists(self.folder):  # also a file or a broken link
            _remove(damaged)
            self.folder.rename(damaged)
        for unfinished in sorted(self._siblings(PARTIAL), key=lambda path: path.stat().st_mtime):
            # There are several if a holder has lost its lease: keep the newest.
            shutil.rmtree(work, ignore_errors=True)
            unfinished.rename(work)
        return work

    def _is_complete(self, work: Path) -> bool:
        """Whether the last attempt was killed just before the rename; else the folder is made ready for another."""
        if (work / manifest.MANIFEST).exists() and self._is_intact(work):
            return True
        work.mkdir(exist_ok=True)
        (work / manifest.MANIFEST).unlink(missing_ok=True)
        remove_temporary_files(work)
        return False

    def _publish(self, work: Path, lease: Lease) -> None:
        """Renames the finished work folder, unless another process has taken over."""
        for checkpoint in list(work.rglob(manifest.CHECKPOINT)):
            if checkpoint.is_dir():
                shutil.rmtree(checkpoint)
        lease.check()
        work.rename(self.folder)
        sync(self.folder.parent)
        self._remove_siblings()
        self.seconds = manifest.verify(self.folder, self.name, self.key)

    def _remove_siblings(self) -> None:
        """Removes everything but the finished folder and the lease; only for the lease's holder."""
        for path in self._siblings():
            if path.is_dir() or path.suffix != ".lease":
                _remove(path)

    def _clean_if_unused(self) -> None:
        """Cleans up after a process that was killed just after it had published the stage."""
        lease = Lease(self._sibling("lease"))
        state = read_lease(lease.path)
        with suppress(OSError):  # the store may be read-only
            unused = state is None or state.alive is False
            if self._siblings() and unused and lease.acquire(wait=False):
                if self.folder.is_dir():
                    self._remove_siblings()
                lease.release()

    def _siblings(self, ending: str = "") -> list[Path]:
        """This stage's files and folders beside the finished folder, temporary (hidden) files included."""
        parent = self.folder.parent
        return [*parent.glob(f"{self.key}.*{ending}"), *parent.glob(f".{self.key}.*{ending}")]

    def _is_intact(self, folder: Path) -> bool:
        try:
            self.seconds = manifest.verify(folder, self.name, self.key)
        except StoreError as error:
            _warn(f"stage {self.name} is damaged and has to be made again: {error}")
            return False
        return True

    @contextmanager
    def _locked(self) -> Iterator[Lease]:
        """Holds this stage's lease, which excludes all other processes and machines."""
        line = "stage %s is being made by another process: waiting for it to end"
        lease = Lease(self._sibling("lease"), lambda: log.warning(line, self.name))
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
            lease.check()  # a lost lease explains any other error, since the folder is gone
            raise
        finally:
            lease.release()

    @contextmanager
    def _stopwatch(self, work: Path) -> Iterator[Callable[[], float]]:
        """Counts the seconds of this attempt and of earlier ones.

        A killed attempt leaves no end time, so the last change of a file in `work` is used.
        """
        notes = self._sibling("tries.json")
        earlier = 0.0
        if notes.exists():
            with suppress(StoreError, KeyError, TypeError):  # it is only an estimate
                attempts = read_json(notes)
                last = max((path.stat().st_mtime for path in work.rglob("*")), default=0.0)
                earlier = attempts["seconds"] + max(0.0, last - attempts["started"])
        write_json(notes, {"seconds": earlier, "started": time.time()})
        start = time.monotonic()
        try:
            yield lambda: earlier + time.monotonic() - start
        except BaseException:
            known = {"seconds": earlier + time.monotonic() - start, "started": time.time()}
            with suppress(StoreError):  # the original error matters more
                write_json(notes, known)
            raise

    def _sibling(self, suffix: str) -> Path:
        return self.folder.with_name(f"{self.key}.{suffix}")


def _remove(path: Path) -> None:
    """Removes a folder, a file or a link, but not a link's target."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@functools.cache
def _warn(line: str) -> None:
    """Logs a line once per process, since the plan and the run find the same damage."""
    log.warning("%s", line)
