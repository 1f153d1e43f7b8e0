"""Exports the ensemble of a finished run as a self-contained folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.method.ensemble.saved import STEERED, save_ensemble

if TYPE_CHECKING:
    from elrea.reporting.report import Report


_EXPERTS = {
    "members": "One base adapter and {count} experts",
    "mixed": "Routing weights mix them prompt by prompt.",
    "first": "expert-0",
}
_HARD = {
    "members": "One adapter that {count} clusters steer",
    "mixed": "The adapter of a prompt's nearest cluster answers it.",
    "first": "steered-0",
}
_SOFT = {
    **_HARD,
    "mixed": "Routing weights mix the clusters' adapters inside the layers, in one pass.",
}


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
        f"| {name} | {_accuracy(row)} | {row['n']} |" for name, row in report.strategies.items()
    )
    steered, count = members.facts.get(STEERED), len(members.adapters) - 1
    card = {
        "backbone": report.backbone,
        **(_EXPERTS if steered is None else _SOFT if steered["soft"] else _HARD),
        "data": report.data,
        "rows": rows,
        "note": f"{report.data}, seed {report.seed}.",
    }
    card["members"] = card["members"].format(count=count)
    save_ensemble(
        folder, members.adapters, members.epochs, members.centroids, members.facts, card, members.router,
    )  # fmt: skip
    return folder


def _accuracy(row: Mapping[str, Any]) -> str:
    return "-" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
