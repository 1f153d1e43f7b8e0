"""Computes each strategy's accuracy, intervals and differences to `base` from its outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.evaluation.similarity import MEASURES
from elrea.evaluation.statistics import (
    by_task,
    checksum_of_correct,
    macro_interval,
    mean_interval,
    paired_interval,
    wilson,
)
from elrea.evaluation.think import UNCLOSED
from elrea.method.ensemble.strategy import BASE

if TYPE_CHECKING:
    from elrea.evaluation.scoring import Outcome

DIGITS = 6


def strategy_figures(
    outcomes: Mapping[str, Outcome],
    passes: Mapping[str, float],
    seed: int,
    resamples: int,
    tasks: Sequence[str] = (),
    answers: Sequence[int | None] = (),
) -> dict[str, dict[str, Any]]:
    """Computes the figures of every strategy.

    Args:
        outcomes: By strategy, item by item; `base` is the reference strategy for the differences.
        passes: Forward passes per prompt, by strategy.
        seed: Of the bootstrap.
        resamples: Bootstrap samples.
        tasks: The task of each item (`Corpus.task_of`); empty for no averages over tasks.
        answers: Index of each item's right choice, None for a free response; empty for no figures by length.

    Returns:
        Per strategy: `accuracy`, `n`, `ci95` (Wilson), `delta_to_base`, `delta_ci95` (paired bootstrap over items),
        `loss` (mean nats per token of the right response over the prompts that fit), `forward_passes`,
        `correct_sha256` (see `checksum_of_correct`). With tasks: `macro` (the mean of their accuracies; `accuracy`
        is the micro average), `macro_ci95` (bootstrap within tasks), `tasks` (by name: `accuracy`, `n`, `ci95`). If
        texts were judged: `unparsed`, the number of texts without an answer, and `unclosed_think`, how many of them
        end inside a think block. With texts for free responses: `free_text`, see `similarity_figures`. If choices of
        different lengths were scored, lm-eval's figures, also by task: see `_by_length`.
    """
    base = outcomes[BASE].correct
    figures: dict[str, dict[str, Any]] = {}
    for name, outcome in outcomes.items():
        correct, n = outcome.correct, len(outcome.correct)
        losses = [loss for loss in outcome.loss if loss is not None]
        figures[name] = {
            "accuracy": round(sum(correct) / n, DIGITS),
            "n": n,
            "ci95": _rounded(wilson(correct)),
            "delta_to_base": None
            if name == BASE
            else round((sum(correct) - sum(base)) / n, DIGITS),
            "delta_ci95": None
            if name == BASE
            else _rounded(paired_interval(correct, base, seed, resamples)),
            "loss": round(sum(losses) / len(losses), DIGITS) if losses else None,
            "forward_passes": round(passes[name], 2),
            "correct_sha256": checksum_of_correct(correct),
        }
        if tasks:
            figures[name] |= _task_figures(correct, tasks, seed, resamples)
        if outcome.choice_norm and answers:
            figures[name] |= _by_length(outcome, answers, range(n))
            for task, row in figures[name].get("tasks", {}).items():
                row |= _by_length(outcome, answers, [i for i in range(n) if tasks[i] == task])
        if outcome.text:
            figures[name]["unparsed"] = len(outcome.unparsed)
            figures[name]["unclosed_think"] = outcome.why.count(UNCLOSED)
        if free := similarity_figures(outcome, outcomes[BASE], seed, resamples):
            figures[name]["free_text"] = free
    return figures


def similarity_figures(
    outcome: Outcome, base: Outcome, seed: int, resamples: int
) -> dict[str, Any]:
    """Mean similarity of the texts for free responses to the responses; empty if there are no such texts.

    Args:
        outcome: Of a strategy.
        base: Of `base`.
        seed: Of the bootstrap.
        resamples: Bootstrap samples.

    Returns:
        `n` texts and, for each of `rouge_l`, `f1` and `exact_match`: the mean, `<name>_ci95`, and the paired
        `<name>_delta_to_base` and `<name>_delta_ci95`, which are None for `base` itself and where it wrote no text for
        some of the examples. All intervals are bootstraps over items.
    """
    written = [i for i, row in enumerate(outcome.similar) if row is not None]
    if not written:
        return {}
    figures: dict[str, Any] = {"n": len(written)}
    theirs = [base.similar[i] for i in written] if base.similar else [None]
    paired = outcome is not base and None not in theirs
    for name in MEASURES:
        own = [row[name] for row in outcome.similar if row is not None]
        figures[name] = round(sum(own) / len(own), DIGITS)
        figures[f"{name}_ci95"] = _rounded(mean_interval(own, seed, resamples))
        other = [row[name] for row in theirs if row is not None] if paired else []
        figures[f"{name}_delta_to_base"] = (
            round((sum(own) - sum(other)) / len(own), DIGITS) if paired else None
        )
        figures[f"{name}_delta_ci95"] = (
            _rounded(mean_interval(np.subtract(own, other), seed, resamples)) if paired else None
        )
    return figures


def _by_length(
    outcome: Outcome, answers: Sequence[int | None], among: Sequence[int]
) -> dict[str, Any]:
    """lm-eval's accuracies over the items, of some, with choices that are scored by likelihood.

    Returns:
        `acc`: by the highest log-likelihood; `acc_norm`: by the highest per character, with `acc_norm_ci95` (Wilson);
        `acc_bytes`: by the highest per byte; `acc_n`: the number of items. Empty without such an item.
    """
    blank = [None] * len(answers)
    texts, why = outcome.text or blank, outcome.why or blank
    # A judge's item whose prompt left no room for a text has a reason alone.
    items = [i for i in among if answers[i] is not None and texts[i] is None and why[i] is None]
    if not items:
        return {}
    right = {
        name: [choice[i] is not None and choice[i] == answers[i] for i in items]
        for name, choice in (
            ("acc", outcome.choice),
            ("acc_norm", outcome.choice_norm),
            ("acc_bytes", outcome.choice_bytes),
        )
    }
    figures: dict[str, Any] = {
        name: round(sum(each) / len(items), DIGITS) for name, each in right.items()
    }
    return {**figures, "acc_norm_ci95": _rounded(wilson(right["acc_norm"])), "acc_n": len(items)}


def _task_figures(
    correct: Sequence[bool], tasks: Sequence[str], seed: int, resamples: int
) -> dict[str, Any]:
    shares = by_task(correct, tasks)
    macro = sum(right / n for right, n in shares.values()) / len(shares)
    return {
        "macro": round(macro, DIGITS),
        "macro_ci95": _rounded(macro_interval(correct, tasks, seed, resamples)),
        "tasks": {
            task: {
                "accuracy": round(right / n, DIGITS),
                "n": n,
                "ci95": _rounded(wilson([True] * right + [False] * (n - right))),
            }
            for task, (right, n) in shares.items()
        },
    }


def _rounded(bounds: tuple[float, float]) -> list[float]:
    return [round(float(bound), DIGITS) for bound in bounds]
