"""Writes predictions.jsonl: the answer of every strategy to every test item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.store.files import write_text

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.evaluation.scoring import Outcome
    from elrea.reporting.report import Report


def write_predictions(path: Path, report: Report) -> None:
    """Writes one JSON line per test item, see `predictions`."""
    lines = (json.dumps(row, ensure_ascii=False) for row in predictions(report))
    write_text(path, "\n".join(lines) + "\n")


def predictions(report: Report) -> Iterator[dict[str, Any]]:
    """A row per test item: its answer, each strategy's choice, the routing weights and w_base.

    If choices are letters that stand for texts, the texts are in `answer_text` and `choice_text`. If choices of
    different lengths were scored, `choice_norm` is the one with the highest likelihood per character. If examples have
    shots, `shots` is the number that fitted. Plain text has a loss alone, and null as `correct`. Each strategy says in
    `why` what it was scored by. If texts were judged, it also has its whole `text`, `extracted`, the answer read from
    it, and for a free response the text's similarity to it: `rouge_l`, `f1`, `exact_match`.
    """
    too_long = set(report.too_long)
    routing = report.routing
    weights = routing.experts().tolist() if routing else []
    base = routing.base.tolist() if routing else []
    for i, example in enumerate(report.test):
        row = {
            "id": example.id,
            "source": example.source,
            "category": example.category,
            "answer": example.response,
            **_text_of(example, "answer", example.answer),
            "strategies": {
                name: _answer(example, outcome, i, example.id in too_long)
                for name, outcome in report.outcomes.items()
            },
            "weights": [round(w, 6) for w in weights[i]] if routing else None,
            "w_base": round(base[i], 6) if routing else None,
        }
        if report.shots:
            row["shots"] = report.shots[i]
        yield row


def _answer(example: Example, outcome: Outcome, i: int, too_long: bool) -> dict[str, Any]:
    choice, loss = outcome.choice[i], outcome.loss[i]
    if example.plain_text:
        return {"choice": None, "correct": None, "loss": None if loss is None else round(loss, 6)}
    row = {
        "choice": None if choice is None else example.choices[choice],
        **_text_of(example, "choice", choice),
        "correct": outcome.correct[i],
        "loss": None if loss is None else round(loss, 6),
    }
    if outcome.choice_norm and (norm := outcome.choice_norm[i]) is not None:
        row["choice_norm"] = example.choices[norm]
    text = outcome.text[i] if outcome.text else None
    if text is not None:
        row |= {"text": text, "extracted": outcome.answer[i]}
    why = outcome.why[i] if outcome.why else None
    row["why"] = why or _by_likelihood(example, outcome, i, too_long)
    if outcome.similar and (similar := outcome.similar[i]) is not None:
        row |= similar
    return row


def _by_likelihood(example: Example, outcome: Outcome, i: int, too_long: bool) -> str:
    """Why an example without a judged text counts as it does."""
    if outcome.choice[i] is not None:
        return "by the choices' likelihoods"
    if outcome.loss[i] is None:
        return "the prompt is too long" if too_long else "not scored: a response without tokens"
    same = "is" if outcome.correct[i] else "is not"
    return f"the likeliest continuation {same} the response"


def _text_of(example: Example, name: str, choice: int | None) -> dict[str, str | None]:
    """The text that a letter stands for, as `<name>_text`; nothing if choices are not letters of options."""
    if not example.options:
        return {}
    return {f"{name}_text": None if choice is None else example.options[choice]}
