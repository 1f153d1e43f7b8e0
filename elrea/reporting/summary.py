"""Computes the contents of summary.json: the figures of a finished run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from elrea.method.routing.distilled import agreement
from elrea.models.training.early_stop import best_epoch, dev_losses

if TYPE_CHECKING:
    from elrea.reporting.report import Grouping, Report


def summary_of(report: Report) -> dict[str, Any]:
    """The contents of summary.json."""
    stops = early_stops(report)
    return {
        **({"name": report.name} if report.name else {}),
        "data": report.data,
        **({"data_note": report.note} if report.note else {}),
        "backbone": report.backbone,
        "seed": report.seed,
        "strategies": dict(report.strategies),
        "clusters": _clusters(report.grouping) if report.grouping else {},
        "routing": routing_figures(report),
        **(
            {"gates": {name: asdict(gate) for name, gate in report.gates.items()}}
            if report.gates
            else {}
        ),
        "examples": {
            "train": report.train,
            "train_dropped_too_long": len(report.dropped),
            "test": len(report.test),
            "test_too_long": list(report.too_long),
            **shot_figures(report),
            **{
                f"{split}_without_feature": {"count": len(ids), "ids": list(ids)}
                for split, ids in report.skipped.items()
            },
            **({"left_out": list(report.left_out)} if report.left_out else {}),
        },
        "stages": {
            name: {
                "key": stage.key,
                "seconds": stage.seconds,
                "reused": stage.reused,
                "strategies": list(stage.strategies),
            }
            for name, stage in report.stages.items()
        },
        **({"early_stop": stops} if stops else {}),
        "versions": dict(report.versions),
    }


def shot_figures(report: Report) -> dict[str, Any]:
    """Requested and mean number of solved examples (shots) per test prompt; empty if the data has none."""
    if not report.shots:
        return {}
    wanted = [len(example.shots) for example in report.test]
    lost = sum(shown < most for shown, most in zip(report.shots, wanted, strict=True))
    mean = sum(report.shots) / len(report.shots)
    return {
        "test_shots": {"wanted": max(wanted), "mean": round(mean, 4), "prompts_with_fewer": lost}
    }


def routing_figures(report: Report) -> dict[str, Any]:
    """Figures of the routing of test prompts; empty if no strategy routes.

    Returns:
        `w_base` (mean), `entropy_nats` (mean entropy of the experts' weights), `nearest` (prompts per nearest cluster)
        and, with a learned router, `distilled`: figures of its training and its agreement with the gradients.
    """
    if report.routing is None:
        return {}
    experts, cosines = report.routing.experts(), report.routing.cosines
    entropy = -(experts * experts.clamp_min(1e-30).log()).sum(1)
    near = cosines[(cosines != 0).any(1)].argmax(
        1
    )  # a prompt without a feature is near to no cluster
    distilled: dict[str, Any] = {
        name: report.router[name]
        for name in ("epoch", "explained", "accuracy", "dev", "held_out")
        if name in report.router
    }
    if report.gradient is not None:
        distilled |= agreement(report.routing, report.gradient)
    return {
        "w_base": round(float(report.routing.base.mean()), 6),
        "entropy_nats": round(float(entropy.mean()), 6),
        "nearest": torch.bincount(near, minlength=cosines.shape[1]).tolist(),
        **({"distilled": distilled} if distilled else {}),
    }


def early_stops(report: Report) -> dict[str, dict[str, Any]]:
    """By adapter trained with early stopping: trained epochs, the kept epoch, and its dev loss (nats per token)."""
    stops = {}
    for name, rows in report.curves.items():
        if losses := dev_losses(rows):
            kept = best_epoch(rows)
            stops[name] = {"trained": max(losses), "kept": kept, "dev_loss": round(losses[kept], 6)}
    return stops


def _clusters(grouping: Grouping) -> dict[str, Any]:
    """Quality of the clustering, and the number of training examples of each source in each cluster."""
    rows = dict(zip(grouping.sources, grouping.counts.tolist(), strict=True))
    return {**grouping.quality, "by_source": rows}
