"""Which process a note on the disk means, and whether that one still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def this() -> dict[str, Any]:
    """Names this process, in JSON: its machine, its number and its start, since numbers are given out again."""
    pid = os.getpid()
    return {"host": _machine(), "pid": pid, "started": _started(pid)}


def alive(process: Mapping[str, Any]) -> bool | None:
    """Whether the process that `this` named lives; None where this machine cannot know.

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
