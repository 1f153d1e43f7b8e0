"""Reads an instruction file as `data=jsonl` does, or says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.rows import RowReader
from elrea.errors import DataError


def read(path: Path, **settings: Any) -> tuple[Example, ...]:
    return read_files({"data.train": str(path)}, RowReader(**settings), Drops())["data.train"]


def fails(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")
