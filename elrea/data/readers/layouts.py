"""Whose layout a file has: what to say to who gave one benchmark's file to another's source."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from elrea.data.readers.tables import SUFFIXES, head, suffix_of

Keys = frozenset[str]


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: all(name in row for name in names)


LAYOUTS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("MMLU", "mmlu", _has("question", "subject", "choices", "answer")),
    ("SVAMP", "svamp", _has("Body", "Question", "Answer")),
    ("MathQA", "mathqa", _has("Problem", "options", "correct")),
    ("MATH", "math", _has("problem", "solution")),
    ("GSM8K", "gsm8k", lambda row: "question" in row and "####" in str(row.get("answer"))),
    ("BIG-Bench Hard", "bbh", _has("examples")),
    ("BIG-Bench Hard", "bbh", _has("input", "target")),
    ("OpenAssistant", "oasst", _has("message_tree_id")),
    ("LESS", "less", _has("dataset", "id", "messages")),
    ("Dolly", "dolly", _has("instruction", "context", "response", "category")),
    ("instruction data", "jsonl", _has("messages")),
    ("instruction data", "jsonl", _has("prompt", "completion")),
    ("instruction data", "jsonl", _has("instruction")),
)
"""Name, the choice of `data` that reads it, and how one of its rows is known; narrow ones first."""


def looks_like(row: object) -> str:
    """What to add to an error about a row: "; it looks like GSM8K (data=gsm8k)", or nothing."""
    if isinstance(row, Mapping):
        for name, choice, fits in LAYOUTS:
            if fits(row):
                return _said(name, choice)
    return ""


def place_looks_like(place: Path) -> str:
    """The same about a file or folder, from the names in it and from its first readable row."""
    if place.is_file():
        return _file_looks_like(place)
    for folder in (place, place.parent):
        if any((folder / "test").glob("*_test.csv")):
            return _said("MMLU", "mmlu")
    if (place / "cot-prompts").is_dir():
        return _said("BIG-Bench Hard", "bbh")
    files = sorted(file for file in place.glob("*") if suffix_of(file) in SUFFIXES)
    return next((said for file in files[:5] if (said := _file_looks_like(file))), "")


def _file_looks_like(file: Path) -> str:
    if suffix_of(file) in (".csv", ".tsv"):
        with file.open(encoding="utf-8", errors="replace", newline="") as stream:
            first = stream.readline()
        if first.rstrip("\n").count("\t") == 2:
            return _said("Flan's chains of thought", "flan_cot")
        cells = next(csv.reader([first]), [])
        known = len(cells) == 6 and cells[-1].strip() in tuple("ABCD")
        return _said("MMLU", "mmlu") if known else ""
    return looks_like(head(file))


def _said(name: str, choice: str) -> str:
    return f"; it looks like {name} (data={choice})"
