"""Figures of test sets with plain text, which has a loss and no right answer: accuracy leaves it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from elrea.evaluation.statistics import checksum_of_correct, paired_interval
from elrea.evaluation.strategy_figures import DIGITS, strategy_figures
from elrea.method.ensemble.strategy import BASE

if TYPE_CHECKING:
    from elrea.evaluation.scoring import Outcome

TEXT = "plain_text"
"""Key of a strategy's figures on plain text."""


def figures_of(
    outcomes: Mapping[str, Outcome],
    passes: Mapping[str, float],
    seed: int,
    resamples: int,
    tasks: Sequence[str],
    plain_text: Sequence[bool],
    answers: Sequence[int | None] = (),
) -> dict[str, dict[str, Any]]:
    """As `strategy_figures`, on the items that are no plain text.

    Args:
        outcomes: By strategy, item by item.
        passes: Forward passes per prompt, by strategy.
        seed: Of the bootstrap.
        resamples: Bootstrap samples.
        tasks: The task of each item.
        plain_text: Whether each item is plain text.
        answers: As of `strategy_figures`.

    Returns:
        Per strategy, the figures of `strategy_figures`; without any other item `accuracy` and its like are None, and
        `loss` is that of the texts. With plain text also `plain_text`: `n`, `loss` (mean over texts of nats per token,
        None if none fits), `delta_to_base` and `delta_ci95` (paired bootstrap over the texts that fit).
    """
    if not any(plain_text):
        return strategy_figures(outcomes, passes, seed, resamples, tasks, answers)
    texts = [i for i, is_text in enumerate(plain_text) if is_text]
    others = [i for i, is_text in enumerate(plain_text) if not is_text]
    if others:
        parts = {name: _part(outcome, others) for name, outcome in outcomes.items()}
        of_others = [tasks[i] for i in others], [answers[i] for i in others if answers]
        figures = strategy_figures(parts, passes, seed, resamples, *of_others)
    else:
        figures = {name: _no_answers(passes[name]) for name in outcomes}
    for name, outcome in outcomes.items():
        figures[name][TEXT] = _losses(outcome, outcomes[BASE], texts, seed, resamples)
        if not others:
            figures[name]["loss"] = figures[name][TEXT]["loss"]
    return figures


def _part(outcome: Outcome, indices: Sequence[int]) -> Outcome:
    """The outcome on some of the items."""
    lists = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    return type(outcome)(
        **{
            name: [values[i] for i in indices] if values else values
            for name, values in lists.items()
        }
    )


def _no_answers(passes: float) -> dict[str, Any]:
    return {
        "accuracy": None, "n": 0, "ci95": None, "delta_to_base": None, "delta_ci95": None, "loss": None,
        "forward_passes": round(passes, 2), "correct_sha256": checksum_of_correct([]), "macro": None,
        "macro_ci95": None, "tasks": {},
    }  # fmt: skip


def _losses(
    outcome: Outcome, base: Outcome, texts: Sequence[int], seed: int, resamples: int
) -> dict[str, Any]:
    pairs = [
        (own, other)
        for own, other in ((outcome.loss[i], base.loss[i]) for i in texts)
        if own is not None and other is not None
    ]
    own, other = [a for a, _ in pairs], [b for _, b in pairs]
    figures: dict[str, Any] = {
        "n": len(texts),
        "loss": round(sum(own) / len(own), DIGITS) if own else None,
        "delta_to_base": None,
        "delta_ci95": None,
    }
    if own and outcome is not base:
        low, high = paired_interval(own, other, seed, resamples)
        figures["delta_to_base"] = round((sum(own) - sum(other)) / len(own), DIGITS)
        figures["delta_ci95"] = [round(float(low), DIGITS), round(float(high), DIGITS)]
    return figures
