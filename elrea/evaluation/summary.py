"""From outcomes to the figures of the table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from elrea.evaluation.scoring import Outcome
from elrea.evaluation.statistics import paired_interval, wilson

DIGITS = 6


def strategy_figures(
    outcomes: Mapping[str, Outcome], passes: Mapping[str, float], seed: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """Figures of every strategy.

    Args:
        outcomes: By strategy, item by item; `base` is what differences are taken to.
        passes: Forward passes per prompt.
        seed: Of the bootstrap.
        resamples: Bootstrap samples.

    Returns:
        Per strategy: `accuracy`, `n`, `ci95` (Wilson), `delta_to_base`, `delta_ci95` (paired bootstrap over items),
        `loss` (mean nats per token of the right response over the prompts that fit), `forward_passes`,
        `correct_sha256` (of the string of 0s and 1s).
    """
    base = outcomes["base"].correct
    figures = {}
    for name, outcome in outcomes.items():
        correct, n = outcome.correct, len(outcome.correct)
        losses = [loss for loss in outcome.loss if loss is not None]
        figures[name] = {
            "accuracy": round(sum(correct) / n, DIGITS),
            "n": n,
            "ci95": _rounded(wilson(correct)),
            "delta_to_base": None
            if name == "base"
            else round((sum(correct) - sum(base)) / n, DIGITS),
            "delta_ci95": None
            if name == "base"
            else _rounded(paired_interval(correct, base, seed, resamples)),
            "loss": round(sum(losses) / len(losses), DIGITS) if losses else None,
            "forward_passes": round(passes[name], 2),
            "correct_sha256": hashlib.sha256(
                "".join("01"[c] for c in correct).encode()
            ).hexdigest(),
        }
    return figures


def _rounded(bounds: tuple[float, float]) -> list[float]:
    return [round(float(bound), DIGITS) for bound in bounds]
