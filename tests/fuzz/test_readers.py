"""Some changes to every kind of file, the same each time; `make fuzz` tries new ones for as long as it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS, Reader, attempt, prepare

EXAMPLES = 40


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_whatever_is_in_a_file_is_read_or_refused_in_one_line(
    reader: Reader, tmp_path: Path
) -> None:
    places = prepare(reader, tmp_path)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        attempt(reader, *places, data)

    tried()
