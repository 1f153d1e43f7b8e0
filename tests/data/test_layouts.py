"""Hints that a file belongs to another source: every source says itself how its files are recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from elrea.data.readers.layouts import Layout, looks_like, place_looks_like
from elrea.data.sources.base import Source


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("bbh", ""),
        ("bbh", "bbh"),
        ("dolly", ""),
        ("flan_cot", ""),
        ("gsm8k", ""),
        ("less", "train/processed/cot"),
        ("math", "train/algebra"),
        ("mathqa", ""),
        ("mmlu", ""),
        ("mmlu", "test"),
        ("mmlu", "test/astronomy_test.csv"),
        ("oasst", ""),
        ("svamp", "SVAMP.json"),
    ],
)
def test_every_source_recognises_its_published_files(published, name, place):
    assert place_looks_like(published(name) / place).endswith(f" (data={name})")


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"instruction": "a", "response": "b"}, "; it looks like instruction data (data=jsonl)"),
        ({"prompt": "a", "completion": "b"}, "; it looks like instruction data (data=jsonl)"),
        ({"question": "a", "answer": "b"}, ""),
        ({"question": "a", "answer": "#### 1"}, "; it looks like GSM8K (data=gsm8k)"),
        # The source with the most columns wins.
        (dict.fromkeys(["instruction", "context", "response", "category"]), "; it looks like Dolly (data=dolly)"),
        (dict.fromkeys(["dataset", "id", "messages"]), "; it looks like LESS (data=less)"),
        ({}, ""),
        ("text", ""),
    ],
)  # fmt: skip
def test_a_row_is_recognised_by_its_columns(row, hint):
    assert looks_like(row) == hint


def test_a_new_source_needs_no_entry_in_a_list():
    @dataclass
    class Riddles(Source):
        name: ClassVar[str] = "riddles"
        title: ClassVar[str] = "Riddles"
        columns: ClassVar[tuple[tuple[str, ...], ...]] = (("riddle", "solution_of_riddle"),)

    assert issubclass(Riddles, Layout)
    row = {"riddle": "?", "solution_of_riddle": "!"}
    assert looks_like(row) == "; it looks like Riddles (data=riddles)"
