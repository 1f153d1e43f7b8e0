"""The parts, each in a process of its own with a time limit, so that one that fails or hangs stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

from experiments.gpu.record import DONE, FAILED, SKIPPED, UNFINISHED, Record, Skip

if TYPE_CHECKING:
    from experiments.gpu.setting import Setting


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        name: Of its module in this package, and of its file.
        title: For the table.
        share: Of the time that is left when it begins, which it may take.
        open_ended: It takes what time there is: to be cut off is no failure.
    """

    name: str
    title: str
    share: float
    open_ended: bool = False


PARTS = (
    Part("checks", "tests marked gpu", 0.2),
    Part("features", "bf16 and 4-bit features against float32", 0.3),
    Part("decode", "joint decoding against one by one", 0.25),
    Part("memory", "memory against forecast", 0.35),
    Part("toy", "the paper's toy cost table", 0.6),
    Part("study", "SmolLM2's study", 1.0, open_ended=True),
)


def run(part: Part, setting: Setting) -> None:
    """Runs one part in this process, and writes how it ended.

    Raises:
        SystemExit: It failed; the error is in its file.
    """
    record = Record(setting.into / f"{part.name}.json", setting.about)
    module = import_module(f"experiments.gpu.{part.name}")
    log = record.path.with_suffix(".txt")
    begun = log.stat().st_size if log.is_file() else 0  # what is before is of earlier calls
    missing = [name for name in getattr(module, "NEEDS", ()) if find_spec(name) is None]
    if missing:
        record.end(SKIPPED, f"needs the package {missing[0]}")
        return
    start = time.perf_counter()
    try:
        module.measure(setting, record)
    except Skip as reason:
        record.end(SKIPPED, str(reason))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "elrea", "experiments", "tests"):
            _failed(record, error, start, log, begun)  # not a package
        record.end(SKIPPED, f"needs the package {error.name}")
    except Exception as error:  # any, so that it is in the file
        _failed(record, error, start, log, begun)
    else:
        record.end(DONE, seconds=time.perf_counter() - start)


def _failed(record: Record, error: Exception, start: float, log: Path, begun: int) -> None:
    import traceback

    traceback.print_exc()
    lines = str(error).strip().splitlines() or [""]
    note = f"{type(error).__name__}: {lines[0][:200]}"
    if isinstance(error, CalledProcessError):
        note = _last_error(log, begun) or note
    record.end(FAILED, note, time.perf_counter() - start)
    sys.exit(1)


def _last_error(log: Path, begun: int) -> str:
    """The last line behind byte `begun` in which a command said why it failed; empty: none."""
    if not log.is_file():
        return ""
    lines = log.read_bytes()[begun:].decode("utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.startswith("error:")]
    return said[-1].removeprefix("error:").strip()[:200] if said else ""


def supervise(part: Part, setting: Setting, command: Sequence[str], seconds: float) -> Record:
    """Runs a part's process, with everything that it starts, to its end or to its time limit.

    Args:
        part: The part.
        setting: What is measured.
        command: Its process, which calls `run`.
        seconds: The limit.

    Returns:
        What it wrote. If that is no verdict, its status is `failed` if the process died or ran out of time,
        `unfinished` if an open-ended one was cut off.
    """
    path = setting.into / f"{part.name}.json"
    before = Record(path, setting.about)
    if before.content["status"] == DONE:
        return before
    before.end(UNFINISHED)
    log = setting.into / f"{part.name}.txt"
    start = time.perf_counter()
    # Small products gain nothing by threads, and lose much beside other work.
    alone = {"OMP_NUM_THREADS": "1"} if setting.small else {}
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**alone, **os.environ},
        )  # fmt: skip
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(process)
    spent, record = time.perf_counter() - start, Record(path, setting.about)
    if record.content["status"] != UNFINISHED:
        return record  # the part's own verdict counts, also if its process ended late
    if code is None:
        status = UNFINISHED if part.open_ended else FAILED
        record.end(status, f"cut off after {seconds:.0f} s; the next call continues", spent)
    else:
        record.end(FAILED, f"its process ended with code {code}: {_last_line(log)}", spent)
    return record


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
    return lines[-1][:200]
