"""Prompts of 100,000 characters, wherever a finished run reads one: routed by their first tokens, or one line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import chat, predict
from elrea.commands.exit import one_line_errors
from elrea.commands.neighbours import neighbours
from elrea.errors import DataError
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from tests.cli.commands import Ended

LONG = "What is " + "a long word, " * 7_692 + "?"


@pytest.fixture
def ensemble(whole: Ended, small_model: Path) -> Ensemble:
    folder = whole.folder / "out" / "ensemble"
    return Ensemble.load(folder, backbone=str(small_model), device=Device("cpu", threads=1))


def test_the_ensemble(ensemble: Ensemble) -> None:
    assert len(LONG) >= 100_000
    (route,), (same,) = ensemble.route([LONG]), ensemble.route([LONG[:2_000]])
    assert route == same, "by the tokens that fit"
    reads: list[Callable[[], Any]] = [
        lambda: ensemble.score([LONG], [["a", "b"]]),
        lambda: ensemble.score(["a"], [["b", LONG]]),
        lambda: ensemble.generate([LONG]),
        lambda: ensemble.generate(["a", LONG]),
    ]
    for read in reads:
        with pytest.raises(DataError, match="longer than the 400 tokens that fit") as caught:
            read()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_the_commands(whole: Ended, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run, rows = str(whole.folder / "out"), tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": LONG}) + "\n")
    asked = {
        chat: [run],
        predict: [run, "--in", str(rows), "--out", str(tmp_path / "answers.jsonl")],
    }
    for module, words in asked.items():
        monkeypatch.setattr(sys, "argv", [module.__name__, *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(LONG))
        with pytest.raises(SystemExit) as ended, one_line_errors():
            module.main()
        err = capsys.readouterr().err
        assert ended.value.code == 1 and err.count("\n") == 1, (module.__name__, err[:500])
        assert err.startswith("error: ") and len(err) < 400, (module.__name__, err[:500])
        assert "longer than the 400 tokens" in err, err


def test_the_nearest_examples_are_found_by_the_first_tokens(whole: Ended) -> None:
    run = whole.folder / "out"
    assert neighbours(run, LONG, 3) == neighbours(run, LONG[:2_000], 3)
