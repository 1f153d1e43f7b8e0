"""What every strategy made of every test item, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elrea.data.examples import Example
from elrea.evaluation.scoring import Outcome
from elrea.pipeline.experiment import Result
from elrea.pipeline.run import Pipeline
from elrea.store.files import write_text


def write_predictions(path: Path, pipeline: Pipeline, result: Result) -> None:
    """One JSON line per test item: its answer, each strategy's choice, the routing weights and w_base.

    Where examples have shots, a row says how many of them there was room for.
    Where texts were judged, a strategy has its `text` too, and `extracted`, the answer that was read out of it.
    """
    routed = pipeline.plan.routed
    weights = result.routing.experts().tolist()
    base = result.routing.base.tolist()
    lines = []
    for i, example in enumerate(pipeline.it.corpus.test):
        row = {
            "id": example.id,
            "source": example.source,
            "category": example.category,
            "answer": example.response,
            "strategies": {
                name: _made(example, outcome, i) for name, outcome in result.outcomes.items()
            },
            "weights": [round(w, 6) for w in weights[i]] if routed else None,
            "w_base": round(base[i], 6) if routed else None,
        }
        if result.shots:
            row["shots"] = result.shots[i]
        lines.append(json.dumps(row, ensure_ascii=False))
    write_text(path, "\n".join(lines) + "\n")


def _made(example: Example, outcome: Outcome, i: int) -> dict[str, Any]:
    choice, loss = outcome.choice[i], outcome.loss[i]
    row = {
        "choice": None if choice is None else example.choices[choice],
        "correct": outcome.correct[i],
        "loss": None if loss is None else round(loss, 6),
    }
    if outcome.text and outcome.text[i] is not None:
        row |= {"text": outcome.text[i], "extracted": outcome.answer[i]}
    return row
