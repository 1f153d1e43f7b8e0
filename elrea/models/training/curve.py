"""The training curve: one row per optimiser step, reported at once and written to curve.json while training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from elrea.store.files import write_json

if TYPE_CHECKING:
    from elrea.models.log import Task

CURVE = "curve.json"

DEV_LOSS = "dev_loss"
"""Key in the curve's row of an epoch's last step: the loss on dev, nats per token, mean over examples."""

INTERVAL = 2.0
"""Minimum number of seconds between two writes of a growing curve.json."""

SHARE = 0.02
"""Maximum share of the time that is spent on rewriting a long curve."""


class CurveWriter:
    """Reports each row to a task, and rewrites curve.json at intervals.

    Args:
        folder: For curve.json.
        task: Gets every row.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self.path = folder / CURVE
        self.task = task
        self.due = -float("inf")

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Reports the rows of a checkpoint, and rewrites curve.json with these only.

        The curve.json of a killed run may have more rows than its last checkpoint.

        Args:
            rows: All rows of the checkpoint, at least one.
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
    """Epoch -> loss on dev at its end; empty for a training without early stop."""
    return {int(row["epoch"]): row[DEV_LOSS] for row in curve if DEV_LOSS in row}


def after_best(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the epochs' folders after the best one; none for a training without early stop."""
    losses = dev_losses(curve)
    return [f"epoch_{epoch}" for epoch in losses if epoch > best_epoch(curve)]


def best_epoch(curve: Sequence[Mapping[str, Any]]) -> int:
    """The epoch with the lowest loss on dev; of several, the first."""
    losses = dev_losses(curve)
    return min(losses, key=lambda epoch: (losses[epoch], epoch))
