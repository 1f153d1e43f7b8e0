"""Exports the ensemble of a finished run as a self-contained folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.method.ensemble.ensemble_folder import save_ensemble

if TYPE_CHECKING:
    from elrea.reporting.report import Report


def export(folder: Path, report: Report) -> Path | None:
    """Writes the base adapter, the experts and the routing data. Writes nothing if no strategy routes.

    Args:
        folder: Receives the ensemble.
        report: Of the run.

    Returns:
        The folder, or None if nothing was written.
    """
    members = report.members
    if members is None:
        return None
    rows = "\n".join(
        f"| {row.get('label', name)} | {_accuracy(row)} | {row['n']} |"
        for name, row in report.strategies.items()
    )
    card = {
        "backbone": report.backbone,
        "clusters": len(members.centroids),
        "data": report.data,
        "rows": rows,
        "note": f"{report.data}, seed {report.seed}.",
    }
    save_ensemble(
        folder, members.adapters, members.epochs, members.centroids, members.facts, card, members.router,
    )  # fmt: skip
    return folder


def _accuracy(row: Mapping[str, Any]) -> str:
    return "-" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
