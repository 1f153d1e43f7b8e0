"""The training curve: one row per optimiser step, reported at once and written to curve.json while training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from elrea.models.log import Task
from elrea.store.files import write_json

CURVE = "curve.json"

DEV_LOSS = "dev_loss"
"""Key in the curve's row of an epoch's last step: the loss on dev, nats per token, mean over examples."""

INTERVAL = 2.0
"""Seconds between two writes of a growing curve.json, at least."""

SHARE = 0.02
"""Of the training time at most, spent on rewriting a long curve."""


class CurveWriter:
    """Reports each row to a task, and rewrites `curve.json` from time to time.

    Args:
        folder: Where curve.json goes.
        task: What every row is reported to.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self.path = folder / CURVE
        self.task = task
        self.due = -float("inf")

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Reports the rows of a checkpoint, and makes curve.json hold these alone.

        Args:
            rows: At least one; a killed run's curve.json may have had more than its last checkpoint.
        """
        self._write(rows)
        self.task.advance(rows[-1]["examples"])
        for row in rows:
            self.task.step(row)

    def report(self, rows: Sequence[Mapping[str, Any]], examples: int) -> None:
        """Reports the last row after an optimiser step, and writes all rows if a write is due.

        Args:
            rows: All rows so far.
            examples: Examples in the last step.
        """
        if monotonic() >= self.due:
            self._write(rows)
        self.task.advance(examples)
        self.task.step(rows[-1])

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        start = monotonic()
        write_json(self.path, list(rows))
        end = monotonic()
        self.due = end + max(INTERVAL, (end - start) / SHARE)


def dev_losses(curve: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Epoch -> loss on dev at its end, of a training curve; empty where there was no early stop."""
    return {int(row["epoch"]): row[DEV_LOSS] for row in curve if DEV_LOSS in row}


def after_best(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the epochs' folders after the best one; none where there was no early stop."""
    losses = dev_losses(curve)
    return [f"epoch_{epoch}" for epoch in losses if epoch > best_epoch(curve)]


def best_epoch(curve: Sequence[Mapping[str, Any]]) -> int:
    """The epoch with the lowest loss on dev, the earliest of equals."""
    losses = dev_losses(curve)
    return min(losses, key=lambda epoch: (losses[epoch], epoch))
