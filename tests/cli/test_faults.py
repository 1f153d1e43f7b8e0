"""Killed in the middle of things: a small part of what `make test-faults` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Ended
from tests.faults.faults import Setting, broken, draw
from tests.faults.trap import Moment

KILLS = [
    Moment("save", 17, "base"),  # half a safetensors file
    Moment("rename", 30, "features"),
    Moment("finish", 1, "out"),  # of the W&B run
]


@pytest.mark.parametrize("at", KILLS, ids=lambda at: at.kind)
def test_killed_and_run_again(at: Moment, whole: Ended, words: list[str], tmp_path: Path) -> None:
    found = broken(tmp_path / "run", Setting(words[:-1], whole, [], 0.0), at)
    assert found["wrong"] == []


def test_moments_are_drawn_from_every_kind_and_stage() -> None:
    every = [Moment("step", i, "base") for i in range(50)] + [Moment("rename", 0, "scores")]
    drawn = draw(every, 5, seed=0)
    assert len(set(drawn)) == 5 and Moment("rename", 0, "scores") in drawn[:2]
    assert drawn == draw(every, 5, seed=0) and drawn != draw(every, 5, seed=1)
    assert draw(every, 8, seed=0)[:5] == drawn
    assert len(draw(every, 99, seed=0)) == 51
