"""A lock that is a file, for folders that machines share: its holder shows that it lives by touching it.

filelock's `FileLock` wants a file system whose locks reach other machines, and its `SoftFileLease` takes nothing over
where names cannot be exchanged: NFS has neither for sure. Here a lease is created exclusively, which NFS does too, and
names its holder. It is free again when that process is seen to be dead, which only the same machine sees, or when its
time stamp has stood still for `LIMIT` seconds of the waiter's own clock: no two machines' clocks are compared.
So a holder that was suspended may find that another has its place: `check` tells before anything is published.
"""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from elrea.errors import StoreError

BEAT = 5.0
"""Seconds between two touches of the file."""
LIMIT = 60.0
"""Seconds without a touch after which a holder counts as dead: some missed beats, a slow file server's pause."""
POLL = 0.1
"""Seconds between two looks at another's lease."""


class Found(NamedTuple):
    """A lease as it stands on the disk."""

    token: str
    """Names this holding of it; of a file that cannot be read, its inode's number."""
    beat: int
    """The file's time stamp in ns, by the file system's clock."""
    alive: bool | None
    """Whether its process lives; None where this machine cannot know."""


class Lease:
    """One lease, free or held by this process. As a context manager it waits until it is free.

    Args:
        path: The lease's file; its folder is there.
        waiting: Called once where another holds it.
    """

    def __init__(self, path: Path, waiting: Callable[[], None] = lambda: None) -> None:
        self.path, self._waiting = path, waiting
        self.token = ""
        self._stop = threading.Event()

    def acquire(self, wait: bool = True) -> bool:
        """Takes the lease.

        Args:
            wait: Until it is free. Else only until its holder is seen to live: on another machine that is one beat.

        Returns:
            Whether this process has it now.

        Raises:
            OSError: The folder cannot be written.
        """
        first = last = None
        still, now = 0.0, time.monotonic()
        while not self._create():
            if (found := look(self.path)) is None:
                continue  # released between the two
            if first is None:
                first = found
                self._waiting()
            # A waiter that was suspended itself has not seen what happened meanwhile.
            passed, now = time.monotonic() - now, time.monotonic()
            still = still + min(passed, 10 * POLL) if found[:2] == last else 0.0
            last = found[:2]
            if found.alive is False or still >= LIMIT:
                _free(self.path, found.token, impatient=still >= 2 * LIMIT)
            elif not wait and (found.alive or last != first[:2]):
                return False
            time.sleep(POLL if found.alive is not False else 0.0)
        return True

    def release(self) -> None:
        """Gives it back, if it is still this process's."""
        self._stop.set()
        with suppress(OSError):  # the next one finds its process dead, or its file standing still
            if self.mine():
                self.path.unlink()
        self.token = ""

    def mine(self) -> bool:
        """Whether the file names this holding."""
        found = look(self.path)
        return found is not None and found.token == self.token

    def check(self) -> None:
        """To be called before anything is published.

        Raises:
            StoreError: Another process has taken over.
        """
        if not self.mine():
            raise StoreError(
                f"{self.path}: this process stood still for {LIMIT:g} s or longer, and another took its place; "
                "start the same command again to use what that one makes"
            )

    def __enter__(self) -> Lease:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _create(self) -> bool:
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        self.token, self._stop = secrets.token_hex(8), threading.Event()
        try:
            os.write(handle, json.dumps({**this_process(), "token": self.token}).encode())
            os.fsync(handle)
        except BaseException:
            os.close(handle)
            self.path.unlink(missing_ok=True)
            raise
        for claim in self.path.parent.glob(f"{glob.escape(self.path.name)}.*"):
            with suppress(OSError):  # of a process killed in `_free`
                claim.rmdir()
        threading.Thread(target=_beat, args=(handle, self._stop), daemon=True).start()
        return True


def look(path: Path) -> Found | None:
    """The lease that stands there, if any; opened, since NFS answers a mere `stat` from its memory."""
    try:
        with path.open("rb") as file:
            state, text = os.fstat(file.fileno()), file.read(10_000)
    except OSError:
        return None
    try:
        holder = json.loads(text)
        if re.fullmatch("[0-9a-f]{16}", holder["token"]):
            return Found(holder["token"], state.st_mtime_ns, alive(holder))
    except (ValueError, LookupError, TypeError, RecursionError):
        pass  # about to be written, or cut by a kill
    return Found(f"{state.st_ino}", state.st_mtime_ns, None)


def _beat(handle: int, stop: threading.Event) -> None:
    """Touches the file behind the handle, which no later lease of that name shares."""
    while not stop.wait(BEAT):
        with suppress(OSError):  # a hiccup; whether the lease is lost, `check` finds out
            os.utime(handle)
    os.close(handle)


def _free(path: Path, token: str, impatient: bool) -> None:
    """Removes a dead process's lease: of all who try at once one does, and nobody removes the next one's."""
    claim = path.with_name(f"{path.name}.{token}")
    try:
        claim.mkdir()
    except FileExistsError:  # another is at it, or was killed there
        if impatient:
            with suppress(OSError):
                claim.rmdir()
        time.sleep(POLL)
        return
    try:
        if (found := look(path)) is not None and found.token == token:
            path.unlink()
    finally:
        with suppress(OSError):
            claim.rmdir()


def this_process() -> dict[str, Any]:
    """Names this process, in JSON: its machine, its number and its start, since numbers are given out again."""
    pid = os.getpid()
    return {"host": _machine(), "pid": pid, "started": _started(pid)}


def alive(process: Mapping[str, Any]) -> bool | None:
    """Whether the process that `this_process` named lives; None where this machine cannot know.

    Raises:
        LookupError: Something is missing.
        TypeError, ValueError: Something is of another kind.
    """
    pid, started = int(process["pid"]), process["started"]
    if process["host"] != _machine() or pid < 1:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return (now := _started(pid)) is None or now == started


def _machine() -> list[Any]:
    """The space that process numbers count in: host, boot and container."""
    found: list[Any] = [socket.gethostname(), "", 0]
    with suppress(OSError):  # Linux has these
        found[1] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found[2] = Path("/proc/self/ns/pid").stat().st_ino
    return found


def _started(pid: int) -> str | None:
    """When it began, in ticks since the boot (proc(5)); None where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "dead" if fields[0] in "ZX" else fields[19]  # its parent has yet to hear of it
