"""Made-up reports, for tests of the code that shows reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elrea.reporting.report import MadeStage, Report

ROW: dict[str, Any] = {
    "accuracy": 0.75, "n": 4, "ci95": [0.5, 0.9], "delta_to_base": 0.25, "delta_ci95": [0.1, 0.4],
    "forward_passes": 9.0, "loss": 1.43,
}  # fmt: skip
BASE = {**ROW, "delta_to_base": None, "delta_ci95": None, "accuracy": 0.5}


def report(**changes: Any) -> Report:
    """A report of two strategies without items, clusters or routing."""
    blank = Report(
        chosen="elrea", command=["seed=3"], data="exam", backbone="tiny", seed=3, resamples=9, test=(), tasks=(),
        train=0, left_out=(), outcomes={}, strategies={"base": BASE, "elrea": ROW}, routing=None, gradient=None,
        router={}, grouping=None, curves={}, stages={"base": MadeStage("base", "k", 2.0, False, {})}, dropped=(),
        too_long=(), shots=(), skipped={"train": [], "test": []}, warnings=(), members=None, versions={"python": "3"},
    )  # fmt: skip
    return replace(blank, **changes)
