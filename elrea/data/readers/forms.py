"""Turns rows of published layouts (ARC, HellaSwag, self-instruct's seed tasks) into rows of instruction data."""

from __future__ import annotations

import json
import string
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from elrea.data.readers.formats import BadRow

Fields = Mapping[str, Any]

ARC = ("question", "choices", "answerKey")
OPEN_BOOK = ("question_stem", "choices", "answerKey")
HELLASWAG = ("ctx", "endings", "label")
"""Fields of a layout; the last one is the answer."""
_PLAIN = {"instruction", "prompt", "answer"}
"""A row with one of these fields says itself what it asks, and is none of the layouts."""
_HELLASWAG_MORE = ("ctx_a", "ctx_b", "source_id", "split", "split_type")
"""Columns of HellaSwag that say nothing more: the two parts of ctx, and where it comes from."""


def plain_row(row: Fields, where: str, named: Collection[str], answered: bool = True) -> Fields:
    """A row of ARC, OpenBookQA, CommonsenseQA or HellaSwag as instruction, choices and answer; any other row itself.

    Args:
        row: the row of the file.
        where: its place, for the messages.
        named: the names that data.fields gives. A layout with one of them is left as it is.
        answered: whether the answer is read. If not, it may be missing, as in the published test sets, and the first
            choice stands for it.

    Raises:
        BadRow: choices without texts and labels, or an answer that is none of them.
    """
    if _PLAIN & row.keys():
        return row
    question = row.get("question")
    if isinstance(question, Mapping) and {"stem", "choices"} <= question.keys():
        row = {**row, "question": question["stem"], "choices": question["choices"]}
    for layout in (ARC, OPEN_BOOK, HELLASWAG):
        needed = layout if answered else layout[:-1]
        if set(needed) <= row.keys() and not {*layout} & {*named}:
            if layout == HELLASWAG:
                return _hellaswag(row, where, answered)
            return _arc(row, layout[0], where, answered)
    return row


def instances(row: Fields, number: int, where: str) -> Sequence[Fields]:
    """The rows of one of self-instruct's tasks, which has its inputs and outputs in `instances`; else the row alone.

    The ids of several are the task's id, or `number`, with "/0", "/1" and so on.

    Raises:
        BadRow: `instances` is not a list of objects, or is empty.
    """
    if not {"instruction", "instances"} <= row.keys() or {"output", "response"} & row.keys():
        return [row]
    inner = row["instances"]
    if not isinstance(inner, list) or not inner or not all(isinstance(i, Mapping) for i in inner):
        raise BadRow(where, "instances must be a list of objects with input and output")
    skipped = ("instances", "name", "is_classification")
    task = {name: value for name, value in row.items() if name not in skipped}
    if len(inner) == 1:
        return [{**task, **inner[0]}]
    name = task.get("id") or number
    return [{**task, **each, "id": f"{name}/{index}"} for index, each in enumerate(inner)]


def _arc(row: Fields, question: str, where: str, answered: bool) -> Fields:
    """{question, choices: {text, label}, answerKey}; or choices as a list of {text, label}, or of texts."""
    choices = row["choices"]
    if isinstance(choices, str):  # a cell of a CSV
        with suppress(ValueError):
            choices = json.loads(choices)
    if isinstance(choices, Mapping):
        texts, labels = choices.get("text"), choices.get("label")
    elif isinstance(choices, list) and all(isinstance(choice, str) for choice in choices):
        texts, labels = choices, list(string.ascii_uppercase[: len(choices)])
    elif isinstance(choices, list) and all(isinstance(choice, Mapping) for choice in choices):
        texts, labels = ([choice.get(key) for choice in choices] for key in ("text", "label"))
    else:
        texts = labels = None
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
        raise BadRow(
            where, "choices must have as many labels as texts: {text: [...], label: [...]}"
        )
    if answered and row["answerKey"] not in labels:
        problem = f"answerKey {row['answerKey']!r} is not one of the labels {labels}"
        raise BadRow(where, problem, "answerKey is not one of the labels")
    rest = {
        name: value
        for name, value in row.items()
        if name not in (question, "choices", "answerKey", "question_concept")
    }
    if "question_concept" in row:  # of CommonsenseQA
        rest.setdefault("category", row["question_concept"])
    answer = labels.index(row["answerKey"]) if answered else 0
    return {**rest, "instruction": row[question], "choices": texts, "answer": answer}


def _hellaswag(row: Fields, where: str, answered: bool) -> Fields:
    """{ind, activity_label, ctx, endings, label}; the label is an index, or empty in the published test set."""
    label = str(row["label"]) if answered else "0"
    if not label.isdecimal() or len(label) > 2:
        problem = (
            f"label {row['label']!r} is not the index of an ending; read a split that has labels"
        )
        raise BadRow(where, problem, "label is not the index of an ending")
    known = {*HELLASWAG, *_HELLASWAG_MORE, "ind", "activity_label"}
    made = {name: value for name, value in row.items() if name not in known}
    made |= {"instruction": row["ctx"], "choices": row["endings"], "answer": int(label)}
    if "ind" in row:
        made.setdefault("id", row["ind"])
    if "activity_label" in row:
        made.setdefault("category", row["activity_label"])
    return made
