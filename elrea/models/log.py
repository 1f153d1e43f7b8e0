"""Protocols by which long work reports its progress and the loss of every training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

PASSES = "examples x epochs"
"""Unit of a training: an example counts once in every epoch."""


class Task(Protocol):
    """One long piece of work while it runs."""

    def advance(self, count: int) -> object:
        """`count` more units are done."""

    def step(self, row: Mapping[str, Any]) -> object:
        """One optimiser step is done.

        Args:
            row: The step's row of curve.json: `step`, `epoch`, `examples`, `loss`, `learning_rate`, and with early
                stop `dev_loss` at an epoch's end.
        """


class Log(Protocol):
    """Receives the reports of all long work of a run: the terminal, W&B, or both."""

    def task(
        self, name: str, text: str, total: int, steps: int = 0, unit: str = "examples"
    ) -> AbstractContextManager[Task]:
        """Opens a piece of work; its end closes it.

        Args:
            name: The stage's or adapter's name, as "base" or "expert-0".
            text: What the terminal shows, as "train base".
            total: Units to do.
            steps: Optimiser steps of a training; 0 for other work.
            unit: What is counted, in the plural: of a training that is `PASSES`.
        """


class Silent:
    """A task that ignores all reports, and a log of such tasks."""

    def advance(self, count: int) -> None:
        return

    def step(self, row: Mapping[str, Any]) -> None:
        return

    @contextmanager
    def task(
        self, name: str, text: str, total: int, steps: int = 0, unit: str = "examples"
    ) -> Iterator[Task]:
        yield self


SILENT = Silent()


@dataclass(frozen=True)
class OnlyProgress:
    """A task that counts units and ignores the rows of training steps."""

    count: Callable[[int], object]
    """Called with the number of units of each `advance`."""

    def advance(self, count: int) -> None:
        self.count(count)

    def step(self, row: Mapping[str, Any]) -> None:
        return
