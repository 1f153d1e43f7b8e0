"""Whole runs on chats whose answers are all learned, and on plain text, alone and beside other rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.cli.commands import QUIET, Ended, run

TEXTS = [f"Once upon a time there were {n} {what}." for n in range(4) for what in ("cats", "dogs")]
STRATEGIES = "evaluation.strategies=[backbone,base,elrea]"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def started(
    tmp_path: Path, tiny: list[str], train: list[Any], test: list[Any], *more: str
) -> Ended:
    files = {
        name: write(tmp_path / f"{name}.jsonl", rows)
        for name, rows in (("train", train), ("test", test))
    }
    data = ["data=jsonl", *(f"data.{name}={path}" for name, path in files.items())]
    return run(tmp_path, *tiny, QUIET, STRATEGIES, *data, *more, plots=True)


def loss_by_hand(folder: Path, text: str, learned: str = "") -> float:
    """transformers' loss of a text with BOS and EOS; with `learned`, of the parts of it that are between bars."""
    model, tokenizer = (
        kind.from_pretrained(folder, local_files_only=True)
        for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    ids, labels = [0], [-100 if learned else 0]
    for number, part in enumerate((learned or text).split("|")):
        coded = tokenizer(part, add_special_tokens=False)["input_ids"]
        ids += coded
        labels += coded if number % 2 or not learned else [-100] * len(coded)
    ids, labels = [*ids, 1], [*labels, 1]
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss)


def first_loss(ended: Ended) -> float:
    """The training loss of the first step, before which the adapter changes nothing."""
    (curve,) = (ended.folder / "store").glob("base/*/curve.json")
    return float(json.loads(curve.read_text())[0]["loss"])


def test_plain_text_alone(tiny: list[str], small_model: Path, tmp_path: Path) -> None:
    train, test = TEXTS[:6], TEXTS[6:]
    ended = started(
        tmp_path, tiny, [{"text": text} for text in train], [{"text": text} for text in test],
        f"store={tmp_path / 'store'}", "clustering.min_size=1",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    own = [loss_by_hand(small_model, text) for text in test]
    assert first_loss(ended) == pytest.approx(
        sum(loss_by_hand(small_model, t) for t in train) / 6, rel=1e-5
    )
    figures = ended.summary["strategies"]
    assert figures["backbone"]["loss"] == pytest.approx(sum(own) / 2, rel=1e-5)
    assert figures["backbone"]["accuracy"] is None and figures["backbone"]["n"] == 0
    assert figures["elrea"]["plain_text"]["n"] == 2
    assert figures["base"]["loss"] < figures["backbone"]["loss"]  # it has learned
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    for line, loss in zip(lines, own, strict=True):
        assert json.loads(line)["strategies"]["backbone"] == {
            "choice": None, "correct": None, "loss": pytest.approx(loss, abs=1e-5),
        }  # fmt: skip
    assert "2 test items are plain text, which has a loss and no right answer" in ended.out
    clusters = ended.summary["clusters"]["sizes"]
    assert sum(clusters) == 6 and len(clusters) == 2
    refused = run(tmp_path, *tiny, QUIET, "data=jsonl", f"data.train={tmp_path / 'train.jsonl'}",
                  "evaluation.by=generation", "hydra.run.dir=other")  # fmt: skip
    assert (
        "is plain text, which is scored by its loss alone; set evaluation.by=auto" in refused.error
    )


def test_plain_text_beside_other_rows(tiny: list[str], small_model: Path, tmp_path: Path) -> None:
    """Accuracy is that of the other rows, and compare reads the run."""
    rows: list[Any] = [{"instruction": f"What is {n}?", "output": "odd"} for n in range(6)]
    choices = [
        {"instruction": f"Is {n} odd?", "choices": ["yes", "no"], "answer": n % 2} for n in range(3)
    ]
    test = [{"text": TEXTS[0]}, *choices, {"text": TEXTS[1]}]
    ended = started(
        tmp_path, tiny, [*rows, *({"text": text} for text in TEXTS[2:])], test, f"store={tmp_path / 'store'}",
        "data.shots=1", "ensemble=elrea",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    figures = ended.summary["strategies"]
    own = [loss_by_hand(small_model, text) for text in TEXTS[:2]]
    for name in ("backbone", "base", "elrea"):
        assert figures[name]["n"] == 3 and round(figures[name]["accuracy"] * 3, 3) in (0, 1, 2, 3)
        assert figures[name]["plain_text"]["n"] == 2
    assert figures["backbone"]["plain_text"]["loss"] == pytest.approx(sum(own) / 2, rel=1e-5)
    low, high = figures["elrea"]["plain_text"]["delta_ci95"]
    assert low <= figures["elrea"]["plain_text"]["delta_to_base"] <= high
    from elrea.reporting.runs import read_run

    found = read_run(tmp_path / "out")
    assert len(found.items) == len(found.correct["base"]) == 3


def test_every_answer_of_a_chat_is_learned(
    tiny: list[str], small_model: Path, tmp_path: Path
) -> None:
    """The first step's loss is the mean over chats of transformers' loss on their answers."""

    def chat(n: int, **weight: Any) -> dict[str, Any]:
        return {"messages": [
            {"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Good.", **weight},
            {"role": "user", "content": "Again"}, {"role": "assistant", "content": "Bye"},
        ]}  # fmt: skip

    train = [*(chat(n) for n in range(4)), *(chat(n, weight=0) for n in range(4, 6))]
    test = [{"instruction": f"Hi you {n}", "output": "Good."} for n in range(2)]
    words = ["clustering.min_size=1", "until=base", f"store={tmp_path / 'store'}"]
    every = [loss_by_hand(small_model, "", f"Hi {n}| Good.|\n\nAgain| Bye") for n in range(4)]
    last = [loss_by_hand(small_model, "", f"Hi {n} Good.\n\nAgain| Bye") for n in range(6)]
    ended = started(tmp_path, tiny, train, test, *words, "data.turns=all")
    assert (ended.code, ended.err) == (0, "")
    assert first_loss(ended) == pytest.approx((sum(every) + sum(last[4:])) / 6, rel=1e-5)
    words[-1] = f"store={tmp_path / 'other' / 'store'}"
    other = started(tmp_path, tiny, train, test, *words)
    assert other.code == 0
    (curve,) = (tmp_path / "other" / "store").glob("base/*/curve.json")
    assert json.loads(curve.read_text())[0]["loss"] == pytest.approx(sum(last) / 6, rel=1e-5)


def test_choices_that_are_the_same_tokens_are_refused_before_training(
    tmp_path: Path, tiny: list[str]
) -> None:
    """In the plan too. The tokenizer has small letters alone."""
    from tests.data.test_expressible import letters
    from tests.small_models import small_llama

    folder = small_llama(tmp_path / "model")
    letters(True, lower=True).save_pretrained(folder)
    train = [{"instruction": "a b", "output": "a"}, {"instruction": "b a", "output": "是"}]
    test = [{"instruction": "is it us", "choices": ["us", "US"], "answer": 1}]
    model = f"backbone.name={folder}"
    text = "data.options=text"
    for kind, more in (("choices", [text]), ("choices", [text, "plan=true"]), ("options", [])):
        ended = started(tmp_path, tiny, train, test, model, *more)
        said = f"test.jsonl:1: the {kind} 'us' and 'US' become the same tokens; word them"
        assert said in ended.error
        assert not (tmp_path / "store").exists()
    test[0]["choices"] = ["us", "is"]
    ended = started(tmp_path, tiny, train, test, model, "clustering.min_size=1", text)
    assert ended.code == 0
    (line,) = ended.summary["examples"]["left_out"]
    assert line.startswith("train: 1 train responses: the tokenizer can express nothing of it (")
    assert "loses or changes a part of 1 train responses, which the report lists" in " ".join(
        f"{ended.out} {ended.err}".split()
    )
