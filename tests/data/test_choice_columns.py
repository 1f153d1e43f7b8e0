"""Choices that have a column each, as A, B, C, D: read as the same rows with one list of choices are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from elrea.commands.predict import read_prompts
from elrea.data.examples import Example
from elrea.data.sources.jsonl import Jsonl
from elrea.errors import DataError

LETTERS = ["A", "B", "C", "D"]
TEXTS = ["red", "blue", "green", "grey"]


def read(folder: Path, row: dict[str, Any], **fields: Any) -> Example:
    (folder / "x.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = Jsonl(train=str(folder / "x.jsonl"), fields=fields).read().train
    return example


@pytest.mark.parametrize(
    ("columns", "answer", "index"),
    [
        (LETTERS, "C", 2),
        (LETTERS, "c", 2),
        (LETTERS, "green", 2),
        (LETTERS, 2, 2),
        (LETTERS, "2", 2),
        (["D", "C", "B", "A"], "A", 3),
        (["option_a", "option_b", "option_c", "option_d"], "option_b", 1),
        (["option_a", "option_b", "option_c", "option_d"], "B", 1),
        (["option1", "option2", "option3", "option4"], "2", 1),
        (["option1", "option2", "option3", "option4"], 2, 1),
        (["option0", "option1", "option2", "option3"], 2, 2),
        ([f"choice{n}" for n in (9, 10, 11, 12)], "10", 1),
        (["Choice A", "Choice B", "Choice C", "Choice D"], "Choice D", 3),
    ],
)
def test_columns_are_read_as_a_list_of_choices(
    columns: list[str], answer: object, index: int, tmp_path: Path
) -> None:
    row = {"instruction": "Which?", **dict(zip(columns, TEXTS, strict=True)), "answer": answer}
    listed = {"instruction": "Which?", "choices": TEXTS, "answer": index}
    assert read(tmp_path, row, choices=columns) == read(tmp_path, listed)


def test_a_question_may_have_fewer_choices(tmp_path: Path) -> None:
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", *LETTERS, "answer"])
        writer.writerow(["Which?", "red", "blue", "green", "", "C"])
        writer.writerow(["Which one?", *TEXTS, "D"])
    data = Jsonl(train=str(tmp_path / "x.csv"), fields={"choices": LETTERS}).read()
    assert [e.options for e in data.train] == [tuple(TEXTS[:3]), tuple(TEXTS)]
    assert [e.response for e in data.train] == ["C", "D"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"A": "red", "B": "", "C": "green", "D": "x", "answer": "C"}, "2 to 26 different texts that are not empty"),
        ({"A": "red", "B": "blue", "answer": "D"}, "the answer 3 is not one of the 2 choices"),
        ({"A": "red", "B": "A", "answer": "A"}, "'A' is the text of one choice and the column of another; give the"),
        ({"A": "red", "B": "blue", "answer": "B", "choices": ["x", "y"]}, "both a field 'choices' and the choices'"),
        ({"A": 1, "B": 2, "answer": "B"}, "choices must be a list of texts"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:1: ") as caught:
        read(tmp_path, {"instruction": "Which?", **row}, choices=LETTERS)
    assert said in str(caught.value)


def test_numbers_of_columns_are_no_indices(tmp_path: Path) -> None:
    row = {"instruction": "Which?", "option1": "red", "option2": "blue", "answer": 0}
    with pytest.raises(DataError, match="the answer 0 is none of the columns option1 to option2"):
        read(tmp_path, row, choices=["option1", "option2"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"choices": ["A"]}, "data.fields.choices=['A']: give at least two columns, each once"),
        ({"choices": ["A", "A"]}, "data.fields.choices=['A', 'A']: give at least two columns, each once"),
        ({"answer": ["A", "B"]}, "data.fields.answer=['A', 'B']: give one name; only choices may be a list"),
        ({"choices": ["A", "B"], "answer": "A"}, "'A' is one of the choices and has another role; where one column"),
    ],
)  # fmt: skip
def test_roles_that_make_no_sense(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"instruction": "Which?", "A": "red", "B": "blue", "answer": "A"}, **fields)
    assert said in str(caught.value)


def test_prompts_with_columns(tmp_path: Path) -> None:
    row = {"question": "Which?", **dict(zip(LETTERS, TEXTS, strict=True)), "id": "q1"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    fields = {"instruction": "question", "choices": LETTERS}
    ((name, prompt),) = read_prompts(tmp_path / "x.jsonl", "letters", fields)
    assert name == "q1"
    assert prompt.instruction == "Which?\nA. red\nB. blue\nC. green\nD. grey\nAnswer:"


def test_a_column_that_no_row_has_is_an_error(tmp_path: Path) -> None:
    """It would take a choice from every question without a word."""
    (tmp_path / "x.csv").write_text("prompt,A,B,C,answer\nWhich?,x,y,z,A\n")
    data = Jsonl(train=str(tmp_path / "x.csv"), fields={"choices": ["A", "B", "E"]}, ignore=["*"])
    with pytest.raises(DataError, match=r"data\.train: no row has the column 'E'"):
        data.read()


def test_a_digit_that_is_a_text_and_an_index_is_refused(tmp_path: Path) -> None:
    row = {"instruction": "Which?", **dict(zip(LETTERS, "3412", strict=True)), "answer": "1"}
    with pytest.raises(
        DataError, match="'1' is the text of one choice and the index from 0 of another"
    ):
        read(tmp_path, row, choices=LETTERS)
