"""Letters with their texts, and accuracies by length, in predictions.jsonl and W&B."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from elrea.data.examples import Example
from elrea.evaluation.scoring import Outcome
from elrea.reporting.predictions import predictions
from elrea.reporting.wandb.run import log_run
from elrea.reporting.wandb.tracker import Tracker
from tests.reporting.reports import BASE, ROW, report

LETTERED = Example("a", "?\nA. red\nB. blue\nAnswer:", "B", "s", choices=("A", "B"),
                   options=("red", "blue"))  # fmt: skip
TEXT = Example("b", "?", "one", "s", choices=("one", "two more"))
FREE = Example("c", "?", "free", "s")
OUTCOME = Outcome(
    [0, 0, None],
    [False, True, False],
    [1.0, 2.0, 3.0],
    choice_norm=[0, 1, None],
    choice_bytes=[0, 1, None],
)
VOTE = Outcome([1, None, None], [True, False, False], [1.0, None, 3.0])


class Recorder:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.figures: dict[str, Any] = {}

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.tables[name] = [dict(zip(columns, row, strict=True)) for row in rows]

    def summary(self, figures: dict[str, Any]) -> None:
        self.figures = figures

    def __getattr__(self, name: str) -> Any:
        return lambda *_args: None


def made(**changes: Any) -> Any:
    figures = {"macro": 0.5, "acc_norm": 0.25, "acc_bytes": 0.125}
    strategies = {"base": {**BASE, **figures}, "elrea": {**ROW, "macro": 0.5}}
    given = {
        "chosen": "base", "test": (LETTERED, TEXT, FREE), "strategies": strategies,
        "outcomes": {"base": OUTCOME, "elrea": VOTE},
    }  # fmt: skip
    return report(**{**given, **changes})


def test_predictions_have_letter_and_text() -> None:
    lettered, text, free = predictions(made())
    assert (lettered["answer"], lettered["answer_text"]) == ("B", "blue")
    assert lettered["strategies"]["base"] == {
        "choice": "A",
        "choice_text": "red",
        "correct": False,
        "loss": 1.0,
        "choice_norm": "A",
        "why": "by the choices' likelihoods",
    }
    assert lettered["strategies"]["elrea"]["choice_text"] == "blue"
    assert text["strategies"]["base"] == {
        "choice": "one",
        "correct": True,
        "loss": 2.0,
        "choice_norm": "two more",
        "why": "by the choices' likelihoods",
    }
    assert "answer_text" not in text and "choice_norm" not in free["strategies"]["base"]


def test_wandb_has_letter_and_text_and_the_accuracies_by_length() -> None:
    recorder = Recorder()
    log_run(cast(Tracker, recorder), made(), {}, None)
    shown = [(row["answer"], row["base"], row["elrea"]) for row in recorder.tables["predictions"]]
    assert shown == [("B. blue", "A. red", "B. blue"), ("one", "one", "-"), ("free", "-", "-")]
    results = {row["strategy"]: row for row in recorder.tables["results"]}
    assert (results["base"]["acc_norm"], results["base"]["acc_bytes"]) == (0.25, 0.125)
    assert results["elrea"]["acc_norm"] is None
    assert recorder.figures["acc_norm"] == 0.25
    assert recorder.figures["strategies"]["base"]["acc_norm"] == 0.25
    plain = {"base": {**BASE, "macro": 0.5}}
    log_run(cast(Tracker, recorder), made(strategies=plain, outcomes={"base": VOTE}), {}, None)
    assert "acc_norm" not in recorder.tables["results"][0]
    assert "acc_norm" not in recorder.figures
