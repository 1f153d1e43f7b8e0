"""Combines several logs into one, so that training reports to the terminal and to W&B at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elrea.models.log import Log, Task


class Logs:
    """A `Log` that forwards everything to several logs, in their order."""

    def __init__(self, *logs: Log) -> None:
        self.logs = list(logs)

    def add(self, log: Log) -> None:
        """Adds a log; it receives tasks that start from now on."""
        self.logs.append(log)

    @contextmanager
    def task(
        self, name: str, text: str, total: int, steps: int = 0, unit: str = "examples"
    ) -> Iterator[Task]:
        """Starts the task in every log."""
        with ExitStack() as stack:
            yield _Tasks(
                [stack.enter_context(log.task(name, text, total, steps, unit)) for log in self.logs]
            )


class _Tasks:
    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks

    def advance(self, count: int) -> None:
        for task in self.tasks:
            task.advance(count)

    def step(self, row: Mapping[str, Any]) -> None:
        for task in self.tasks:
            task.step(row)
