"""Finding the files of a split, and files that cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from elrea.data.readers.tables import rows_of, split_files
from elrea.errors import DataError


def found(folder: Path, *names: str) -> list[str]:
    """The names of train's files in a folder with these files."""
    for name in names:
        (folder / name).write_text("{}\n")
    return [file.name for file in split_files(folder, "train")]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["train.jsonl", "train_socratic.jsonl", "train-00000-of-00001.parquet"], ["train.jsonl"]),
        (["train.jsonl.gz", "train_first1000.jsonl"], ["train.jsonl.gz"]),
        (["train_first1000.jsonl", "test.jsonl"], ["train_first1000.jsonl"]),
        (
            ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "train_x.jsonl"],
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ),
        (["test.jsonl", "train.txt"], []),
    ],
)
def test_files_of_a_split(tmp_path, names, taken):
    assert found(tmp_path, *names) == taken


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train_a.jsonl", "train_b.jsonl"], "train_a.jsonl and train_b.jsonl could each be train; keep one of them"
         " here, or rename it to train.jsonl"),
        (["train.json", "train.jsonl"], "train.json and train.jsonl could each be train;"),
        (["train-00000-of-00002.parquet"], "some parts of train are missing, or there are two sets of them: train-0"),
        (["train-0-of-1.json", "train-0-of-1.jsonl"],
         "some parts of train are missing, or there are two sets of them: train-0"),
    ],
)  # fmt: skip
def test_ambiguous_or_missing_files_are_refused(tmp_path, names, said):
    with pytest.raises(DataError) as caught:
        found(tmp_path, *names)
    assert str(caught.value).startswith(f"{tmp_path}: {said}")


def test_a_damaged_archive_is_reported(tmp_path):
    file = tmp_path / "a.jsonl.gz"
    rows = "".join(json.dumps({"text": f"{i} {i * i}"}) + "\n" for i in range(500))
    whole = gzip.compress(rows.encode(), mtime=0)
    for place in range(12, len(whole) - 8, 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(DataError) as caught:
            list(rows_of(file))
        assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
    file.write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read \(Compressed file ended"):
        list(rows_of(file))
