"""`elrea chat RUN` on a finished run: it answers line by line, and names the members that answer."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from elrea.commands import chat
from elrea.commands.messages import one_line_errors
from elrea.data.examples import Example
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble, Route
from elrea.models.device import Device
from tests.cli.commands import Ended


def output(monkeypatch, capsys, words: list[str], typed: str) -> str:
    """What the command prints for these arguments and this standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    chat.main(words)
    return str(capsys.readouterr().out)


def test_the_answers_are_the_ensembles(
    whole: Ended, small_model: Path, monkeypatch, capsys
) -> None:
    run = whole.folder / "out"
    ensemble = Ensemble.load(
        run / "ensemble", backbone=str(small_model), device=Device("cpu", threads=1)
    )
    short = Decoding(max_new_tokens=5)
    first, second = ensemble.generate(["Say one.", "Say two."], short)
    weighed = [f"[{chat.members(route)}]" for route in ensemble.route(["Say one.", "Say two."])]
    words = [str(run), "--max-new-tokens", "5"]
    out = output(monkeypatch, capsys, words, "Say one.\n\nSay two.")
    assert out == f"{weighed[0]}\n{first}\n\n{weighed[1]}\n{second}\n\n"
    on = output(monkeypatch, capsys, [*words, "--turns"], "Say one.\nSay two.\n")
    asked = Example("x", "Say two.", "", "", history=(("user", "Say one."), ("assistant", first)))
    assert on.split("\n\n")[1].split("\n", 1)[1] == ensemble.generate([asked], short)[0]


def test_a_byte_order_mark_is_removed(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffSay one.\n"))
    assert (chat._read_line(), chat._read_line()) == ("Say one.", None)


def test_the_members_with_the_largest_weights_are_named() -> None:
    weights = {"base": 0.2, "expert-0": 0.1, "expert-1": 0.65, "expert-2": 0.05}
    assert chat.members(Route(weights, [], 1)) == "expert-1 0.65, base 0.20, expert-0 0.10"
    assert chat.members(Route({"base": 0.0, "expert-0": 1.0}, [], 0)) == "expert-0 1.00"


def test_an_error_is_one_line(whole: Ended, tmp_path: Path, monkeypatch, capsys) -> None:
    run = str(whole.folder / "out")
    for words, line in (
        ([str(tmp_path)], "no ensemble.json there; give the folder of a finished run"),
        ([str(tmp_path / "none")], "none: no such folder; give a run's, as outputs/<day>/<time>"),
        ([run, "--top-k", "0"], "--top-k 0: must be at least 1"),
        ([run, "--max-new-tokens", "0"], "max_new_tokens=0: must be at least 1"),
        ([run, "--backbone", str(tmp_path / "none")], "the ensemble's backbone 'small' is needed"),
        ([run, "--max-new-tokens", "500"], "the prompt: longer than the 400 tokens that fit"),
    ):
        with pytest.raises(SystemExit), one_line_errors():
            output(monkeypatch, capsys, words, "Hi\n")
        err = capsys.readouterr().err
        assert line in err and len(err.splitlines()) == 1, err
