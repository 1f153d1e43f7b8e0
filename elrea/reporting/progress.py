"""Progress bars with rate and remaining time on a terminal; elsewhere one plain line at the end."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from elrea.models import log as tasks

log = logging.getLogger(__name__)

WIDTH = 100
"""Maximum number of columns, also on wider terminals."""

_DESCRIPTION = 34  # columns for the description


class Bar:
    """One task on the screen; made by `bar`."""

    def __init__(self, moving: Progress | None, description: str, total: int) -> None:
        self.done, self.loss = 0, ""
        self._moving = moving
        label = description if len(description) <= _DESCRIPTION else description[:31] + "..."
        self._task = moving.add_task(label, total=total, loss="") if moving else None

    def advance(self, count: int) -> None:
        """Counts `count` more units as done."""
        self.done += count
        if self._moving is not None and self._task is not None:
            self._moving.advance(self._task, count)

    __call__ = advance

    def step(self, row: Mapping[str, Any]) -> None:
        """Shows the loss of an optimiser step."""
        self.loss = f"loss {row['loss']:.3g}"
        if self._moving is not None and self._task is not None:
            self._moving.update(self._task, loss=self.loss)


@contextmanager
def bar(
    description: str,
    total: int,
    unit: str = "examples",
    console: Console | None = None,
) -> Iterator[Bar]:
    """Shows the progress of a long task.

    On a terminal a Rich bar moves and disappears at the end. Everywhere one line is printed at the end:
    `train base: 12,000 examples x epochs in 41 s (293/s), loss 1.23`. Nothing is printed before it, so that files
    and pipes receive one line per task. The line is in the log too.

    Args:
        description: Of the task, e.g. "train base".
        total: Number of units to do; for a resumed task, the remaining ones.
        unit: Name of the units, in the plural.
        console: Receives the output; None prints to standard output.

    Yields:
        The bar. Calling it with a number counts that many units as done.
    """
    out = console or screen()
    start = monotonic()
    moving = _moving(out, unit) if _animates(out) else None
    shown = Bar(moving, description, total)
    if moving is not None:
        moving.start()
    finished = False
    try:
        yield shown
        finished = True
    finally:
        if moving is not None:
            moving.stop()
        seconds, done = monotonic() - start, shown.done
        last = done if finished else total
        units = unit if last != 1 else re.sub(r"s\b", "", unit)
        amount = f"{done:,} {units}" if finished else f"stopped at {done:,} of {total:,} {units}"
        line = f"{description}: {amount} {'in' if finished else 'after'} {duration(seconds)} ({rate(done, seconds)})"
        line = ", ".join(part for part in (line, shown.loss) if part)
        say(out, line)
        log.info("%s", line)


class Terminal:
    """Shows the tasks of a run as progress bars; implements `elrea.models.log.Log`."""

    def task(
        self, name: str, text: str, total: int, steps: int = 0, unit: str = "examples"
    ) -> AbstractContextManager[tasks.Task]:
        """Starts a bar."""
        return bar(text, total, unit)


def screen() -> Console:
    """A Rich console on standard output, at most `WIDTH` columns wide; it respects NO_COLOR."""
    from rich.console import Console

    console = Console()
    # Rich assumes 80 columns for a pipe. COLUMNS, if set, still applies below the limit.
    unknown = not _isatty(console) and not os.environ.get("COLUMNS", "").isdigit()
    if unknown or console.width > WIDTH:
        console.width = WIDTH
    return console


def say(out: Console, line: str) -> None:
    """Prints one line without wrapping it, so that paths in it can be copied."""
    out.print(line, soft_wrap=True, highlight=False, markup=False)


def duration(seconds: float) -> str:
    """Formats a duration: `0.4 s`, `41 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def rate(count: float, seconds: float) -> str:
    """Formats a rate per second: `1,293/s`, `9.5/s`, `0.25/s`."""
    speed = count / max(seconds, 1e-9)
    # Durations below 0.01 s are too short to measure a rate.
    if seconds < 0.01 or speed == 0:
        return "-/s"
    return (
        f"{speed:,.0f}/s" if speed >= 9.95 else f"{speed:.1f}/s" if speed >= 1 else f"{speed:.2f}/s"
    )


def _isatty(console: Console) -> bool:
    return bool(getattr(console.file, "isatty", lambda: False)())


def _animates(console: Console) -> bool:
    """Whether a bar can move there. Rich alone would take a pipe for a terminal if FORCE_COLOR is set."""
    return _isatty(console) and console.is_terminal and not console.is_dumb_terminal


def _moving(console: Console, unit: str) -> Progress:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class CountColumn(ProgressColumn):
        """Units done, loss, rate and remaining time."""

        max_refresh = 0.5  # seconds; figures that change faster cannot be read

        def render(self, task: Task) -> Text:
            parts = [f"{task.completed:,.0f}/{task.total or 0:,.0f} {unit}"]
            if task.fields["loss"]:
                parts.append(task.fields["loss"])
            if task.speed:
                parts.append(rate(task.speed, 1.0))
            if task.time_remaining is not None:
                parts.append(f"{duration(task.time_remaining)} left")
            return Text("  ".join(parts))

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        CountColumn(),
        console=console,
        transient=True,
    )
