"""A lock file for folders that several machines share: a lease, which the holder keeps by touching the file.

A lease is created with O_EXCL, which NFS supports, and names its holder. It is free again when that process is dead,
which only the same machine can see, or when its time stamp has not changed for `LIMIT` seconds of the waiter's own
clock; clocks of different machines are never compared. So a suspended holder may lose its lease: call `check` before
publishing anything.

Why not filelock's SoftFileLease (tried with 4.2.11 against tests/store/test_lock.py): it replaces a dead holder's file
by exchanging two names, which NFS refuses, and then waits for ever; it waits for ever on an empty file, which a process
killed while locking leaves; and it takes over from a zombie only when the lease has expired.
"""

from __future__ import annotations

import glob
import json
import math
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
"""Seconds between two touches of the file (the heartbeat)."""
LIMIT = 60.0
"""Seconds without a touch after which a holder counts as dead; long enough for a slow file server."""
PATIENCE = 2.0
"""Seconds of waiting before `waiting` is called."""
POLL = 0.1
"""Seconds between two reads of another process's lease."""


class LeaseState(NamedTuple):
    """A lease as it was read from the disk."""

    token: str
    """A random id of this acquisition; the inode number if the file's content is not valid."""
    touched: int
    """The file's time stamp in ns, by the file system's clock."""
    alive: bool | None
    """Whether its process is alive; None if this machine cannot know."""


class Lease:
    """A lease that this process can acquire. As a context manager it waits until the lease is free.

    Args:
        path: The lock file; its folder exists.
        waiting: Called once if another process still holds the lease after `PATIENCE`.
    """

    def __init__(self, path: Path, waiting: Callable[[], None] = lambda: None) -> None:
        self.path, self._waiting = path, waiting
        self.token = ""
        self._stop = threading.Event()

    def acquire(self, wait: bool = True) -> bool:
        """Acquires the lease.

        Args:
            wait: Wait until it is free. Otherwise only wait until it is known that the holder is alive: a holder on
                another machine has to touch the file once.

        Returns:
            Whether this process holds the lease now.

        Raises:
            OSError: The folder cannot be written.
        """
        first = last = None
        unchanged, now = 0.0, time.monotonic()
        say_at = now + PATIENCE
        while not self._create():
            if (state := read_lease(self.path)) is None:
                continue  # it was released in the meantime
            first = first or state
            if now >= say_at and state.alive is not False:
                say_at = math.inf
                self._waiting()
            # Capped, because a waiter that was suspended did not see what happened in that time.
            passed, now = time.monotonic() - now, time.monotonic()
            unchanged = unchanged + min(passed, 10 * POLL) if state[:2] == last else 0.0
            last = state[:2]
            if state.alive is False or unchanged >= LIMIT:
                _remove_dead(self.path, state.token, impatient=unchanged >= 2 * LIMIT)
            elif not wait and (state.alive or last != first[:2]):
                return False
            time.sleep(POLL if state.alive is not False else 0.0)
        return True

    def release(self) -> None:
        """Releases the lease, if this process still holds it."""
        self._stop.set()
        with suppress(OSError):  # another process then finds the holder dead or the file untouched
            if self.is_held():
                self.path.unlink()
        self.token = ""

    def is_held(self) -> bool:
        """Whether this process holds the lease, according to the file."""
        state = read_lease(self.path)
        return state is not None and state.token == self.token

    def check(self) -> None:
        """Refuses to go on if the lease was lost; call it before publishing anything.

        Raises:
            StoreError: Another process has taken over.
        """
        if not self.is_held():
            raise StoreError(
                f"{self.path}: this process was suspended for {LIMIT:g} s or longer, and another one has taken over; "
                "run the same command again to use its result"
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
            with suppress(OSError):  # left by a process killed in `_remove_dead`
                claim.rmdir()
        threading.Thread(target=_heartbeat, args=(handle, self._stop), daemon=True).start()
        return True


def read_lease(path: Path) -> LeaseState | None:
    """Reads the lease at a path, or None if there is none. The file is opened because NFS caches `stat`."""
    try:
        with path.open("rb") as file:
            state, text = os.fstat(file.fileno()), file.read(10_000)
    except OSError:
        return None
    try:
        holder = json.loads(text)
        if re.fullmatch("[0-9a-f]{16}", holder["token"]):
            return LeaseState(holder["token"], state.st_mtime_ns, alive(holder))
    except (ValueError, LookupError, TypeError, RecursionError):
        pass  # not written yet, or its process was killed while writing
    return LeaseState(f"{state.st_ino}", state.st_mtime_ns, None)


def _heartbeat(handle: int, stop: threading.Event) -> None:
    """Touches the open file; a later lease under the same name is another file, and is not touched."""
    while not stop.wait(BEAT):
        with suppress(OSError):  # transient; `check` finds out whether the lease was lost
            os.utime(handle)
    os.close(handle)


def _remove_dead(path: Path, token: str, impatient: bool) -> None:
    """Removes a dead holder's lease.

    Of several processes that try at the same time one succeeds, and none removes the lease of the next holder: a
    folder named by the token is claimed first.

    Args:
        path: The lease.
        token: The dead holder's.
        impatient: Drop another process's claim too, because that process must have been killed.
    """
    claim = path.with_name(f"{path.name}.{token}")
    try:
        claim.mkdir()
    except FileExistsError:  # claimed by another process, which may have been killed
        if impatient:
            with suppress(OSError):
                claim.rmdir()
        time.sleep(POLL)
        return
    try:
        if (state := read_lease(path)) is not None and state.token == token:
            path.unlink()
    finally:
        with suppress(OSError):
            claim.rmdir()


def this_process() -> dict[str, Any]:
    """Identifies this process, in JSON: machine, process id and start time, since process ids are reused."""
    pid = os.getpid()
    return {"host": _machine(), "pid": pid, "started": _start_time(pid)}


def alive(process: Mapping[str, Any]) -> bool | None:
    """Whether the process that `this_process` identified is alive; None if this machine cannot know.

    Raises:
        LookupError: A key is missing.
        TypeError, ValueError: A value has the wrong type.
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
    return (now := _start_time(pid)) is None or now == started


def _machine() -> list[Any]:
    """The namespace of process ids: host name, boot id and container."""
    found: list[Any] = [socket.gethostname(), "", 0]
    with suppress(OSError):  # on Linux only
        found[1] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found[2] = Path("/proc/self/ns/pid").stat().st_ino
    return found


def _start_time(pid: int) -> str | None:
    """When the process started, in clock ticks since the boot (proc(5)); "dead" for a zombie, None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "dead" if fields[0] in "ZX" else fields[19]
