"""Times, memory and ratios for the benchmarks, and the processes that they run in."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def rounds(
    ways: Mapping[str, Callable[[], object]],
    count: int,
    prepare: Callable[[Any], object] = lambda _way: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times each way once per round, after a first round that is not counted.

    Args:
        ways: By name, what is timed.
        count: Rounds.
        prepare: Called with a way before each time, outside the clock.
        clock: Seconds now.

    Returns:
        Seconds by way, round by round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count + 1):
        for name, way in ways.items():
            prepare(way)
            start = clock()
            way()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Median, least and most of the rounds' ratios."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "median": round(statistics.median(each), 3),
        "min": round(min(each), 3),
        "max": round(max(each), 3),
    }


def memory_mib() -> tuple[float, float]:
    """Memory of this process, MiB: now, and its peak (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(sizes["VmRSS"]) / 1024, int(sizes["VmHWM"]) / 1024


def peaks_over_imports(
    ways: Sequence[str], imports: str, peak: Callable[[str], float], count: int
) -> dict[str, list[float]]:
    """Peak memory of each way, less that of a process that only imports.

    Args:
        ways: Names.
        imports: Name of the process that only imports.
        peak: From a name to the peak of a new process, MiB.
        count: Processes per way.

    Returns:
        MiB by way, process by process.
    """
    found: dict[str, list[float]] = {name: [] for name in (imports, *ways)}
    for _ in range(count):
        for name, peaks in found.items():
            peaks.append(peak(name))
    floor = found.pop(imports)
    return {
        name: [high - low for high, low in zip(peaks, floor, strict=True)]
        for name, peaks in found.items()
    }


def in_process(module: str, words: Sequence[str], python: str = sys.executable) -> str:
    """Last line that a module prints in a process of its own.

    Args:
        module: Its name within this folder.
        words: Its arguments.
        python: The interpreter.

    Raises:
        CalledProcessError: The process failed.
    """
    command = [python, "-m", f"experiments.benchmarks.{module}", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def machine(**more: Any) -> dict[str, Any]:
    """The machine, for the results: cores, system, and what is passed."""
    return {"cores": os.cpu_count(), "system": platform.platform(), **more}


def median_range(found: Mapping[str, float]) -> str:
    """A ratio as text: median [least, most]."""
    return f"{found['median']:.2f} [{found['min']:.2f}, {found['max']:.2f}]"
