"""Kills a process at the n-th event of a kind, wherever in the code that is.

Python tells its audit hooks of every file that is opened for writing, renamed or removed; steps of training, rows of
features, safetensors files and the end of the W&B run are told by the functions that do them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("step", "rows", "save", "write", "rename", "remove", "finish")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CALLS = {"os.rename": "rename", "os.remove": "remove", "os.rmdir": "remove", "shutil.rmtree": "remove"}  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """The `number`-th event (from 0) of a `kind`, while a `stage` was made (`out`: the run's folder)."""

    kind: str
    number: int
    stage: str


@dataclass(frozen=True)
class Trap:
    """Called in the process that is to be killed.

    Attributes:
        log: Where every event goes, one a line: its kind and its stage.
        at: When to act; never, if None.
        send: The signal.
    """

    log: Path
    at: Moment | None = None
    send: int = signal.SIGKILL

    def __call__(self) -> None:
        from safetensors import torch as safetensors

        from elrea.method.features import to_disk as stream
        from elrea.models.training.module import AdapterModule
        from elrea.reporting.wandb.tracker import Tracker

        roots = tuple(f"{Path.cwd() / name}/" for name in ("store", "out"))
        counts: Counter[str] = Counter()
        handle = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        stage = "out"

        def event(kind: str) -> bool:
            """Whether it is the one."""
            if threading.current_thread() is not threading.main_thread():
                return False
            os.write(handle, f"{kind} {stage}\n".encode())
            counts[kind] += 1
            return self.at is not None and (kind, counts[kind] - 1) == (
                self.at.kind,
                self.at.number,
            )

        def fire() -> None:
            os.write(handle, f"fired {time.monotonic()}\n".encode())
            os.kill(os.getpid(), self.send)

        def heard(name: str, args: tuple[Any, ...]) -> None:
            nonlocal stage
            kind = _CALLS.get(name)
            if name == "open" and isinstance(args[2], int) and args[2] & _WRITES:
                kind = "write"
            if kind is None or not isinstance(args[0], str | os.PathLike):
                return
            path = os.path.abspath(args[0])
            if path.startswith(roots) and "/wandb/" not in path:
                stage = path.removeprefix(roots[0]).split("/")[0] if path.startswith(roots[0]) else "out"  # fmt: skip
                if event(kind):
                    fire()

        def told(place: Any, name: str, kind: str, act: Callable[..., Any] | None = None) -> None:
            original = getattr(place, name)

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                if event(kind):
                    if act:
                        act(original, *args, **kwargs)
                    fire()
                return original(*args, **kwargs)

            setattr(place, name, wrapped)

        def half(
            save: Callable[..., Any], tensors: Any, path: Any, *args: Any, **more: Any
        ) -> None:
            save(tensors, path, *args, **more)
            os.truncate(path, Path(path).stat().st_size // 2)

        def soon(finish: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
            threading.Timer(0.02, fire).start()
            finish(*args, **kwargs)

        told(AdapterModule, "training_step", "step")
        told(stream, "write_rows", "rows")
        told(safetensors, "save_file", "save", half)
        told(Tracker, "finish", "finish", soon)
        sys.addaudithook(heard)


def moments(log: Path) -> list[Moment]:
    """Every event that a trap has seen."""
    counts: Counter[str] = Counter()
    found = []
    for line in log.read_text().splitlines():
        kind, stage = line.split(maxsplit=1)
        if kind in KINDS:
            found.append(Moment(kind, counts[kind], stage))
            counts[kind] += 1
    return found


def fired(log: Path) -> float | None:
    """When the trap sprang, by the monotonic clock; None if it did not."""
    found = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("fired")]
    return float(found[0]) if found else None
