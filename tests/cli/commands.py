"""Runs `run.py` as a user does, in a process of its own.

Importing torch and the rest takes longer than a tiny run. So the processes are forked from one that has imported
them already; apart from that they are what `python run.py ...` is: own working folder, own output, own exit code.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from elrea.reporting.plots import draw

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds; a run takes three

_forks = multiprocessing.get_context("forkserver")
PRELOADED = ["tests.cli.preload"]
_forks.set_forkserver_preload(PRELOADED)

TINY = [
    "backbone=pretrained", "backbone.max_length=400", "adapter.r=2", "features.projection.d=16", "training.epochs=2",
    "training.expert_epochs=1", "training.batch_size=8", "clustering.k=2", "clustering.min_size=4",
    "evaluation.resamples=50", "trainer.accelerator=cpu", "trainer.threads=1", "hydra.run.dir=out",
]  # fmt: skip
"""A run of seconds, whatever its data."""
EXAM = ["data.boards=2", "data.train_per_board=16", "data.dev_per_board=4", "data.test_per_board=6"]
QUIET = "tracking.mode=disabled"


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, and what it said."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json, less what may differ between two runs that do the same."""
        found: dict[str, Any] = json.loads((self.folder / "out" / "summary.json").read_text())
        for stage in found["stages"].values():
            del stage["seconds"], stage["reused"]
        return found

    @property
    def error(self) -> str:
        """The one line of an error that a user can mend."""
        assert self.code == 1, self
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        assert "Traceback" not in self.out
        return lines[0].removeprefix("error: ")


class Command:
    """`python run.py <words>` in `folder`, started at once.

    Args:
        folder: Where it is started; it is made.
        words: Options and overrides.
        before: Called first in the command's process.
        plots: Whether a finished run draws its plots, which takes a third of a tiny run's time.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        before: Callable[[], None] | None = None,
        plots: bool = False,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        arguments = (str(folder), words, before, plots)
        self._process: ForkServerProcess = _forks.Process(target=_main, args=arguments)
        self._process.start()

    def wait(self) -> Ended:
        """Waits for its end."""
        self._process.join(LIMIT)
        if self._process.is_alive():
            self._process.kill()
            raise TimeoutError((self.folder / "stderr").read_text())
        out, err = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
        return Ended(self._process.exitcode or 0, out, err, self.folder)

    def signal_when(self, ready: Callable[[], bool], number: int) -> Ended:
        """Sends it a signal as soon as something holds."""
        until = time.monotonic() + LIMIT
        while not ready():
            assert self._process.is_alive(), self.wait()
            assert time.monotonic() < until, "what was waited for never came"
            time.sleep(0.001)
        os.kill(self._process.pid or 0, number)
        return self.wait()


def run(folder: Path, *words: str, plots: bool = False) -> Ended:
    """`python run.py <words>` in `folder`, from start to end; with `plots` a finished run draws them."""
    return Command(folder, *words, plots=plots).wait()


def run_code(folder: Path, code: str, *words: str) -> Ended:
    """`python -c <code> <words>` in `folder`, from start to end."""
    process = _forks.Process(target=_code, args=(str(folder), code, words))
    process.start()
    process.join(LIMIT)
    out, err = ((folder / name).read_text() for name in ("stdout", "stderr"))
    return Ended(process.exitcode or 0, out, err, folder)


def run_module(folder: Path, module: str, *words: str, given: str = "") -> Ended:
    """`python -m <module> <words>` in `folder`, from start to end, which reads `given` from its standard input."""
    (folder / "stdin").write_text(given)
    return run_code(folder, MODULE, module, *words)


MODULE = """
import os, runpy, sys
os.dup2(os.open("stdin", os.O_RDONLY), 0)
sys.stdin = open(0, encoding="utf-8")
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def _code(folder: str, code: str, words: tuple[str, ...]) -> None:
    _enter(folder)
    sys.argv = ["-c", *words]
    sys.path.insert(0, "")
    exec(code, {"__name__": "__main__"})


def _enter(folder: str) -> None:
    """Goes into a folder, and writes there what is printed."""
    os.chdir(folder)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), number)


def _main(
    folder: str, words: tuple[str, ...], before: Callable[[], None] | None, plots: bool
) -> None:
    _enter(folder)
    if not plots:
        draw.draw = lambda folder, report: {}
    # A shell starts what runs in the background with SIGINT ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [str(ROOT / "run.py"), *words]
    if before:
        before()
    runpy.run_path(sys.argv[0], run_name="__main__")
