"""`python -m elrea.chat RUN` on a finished run: answers line by line, and says who answers."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from elrea.commands import chat
from elrea.commands.messages import told
from elrea.data.examples import Example
from elrea.method.ensemble.decoding import Decoding
from elrea.method.ensemble.ensemble import Ensemble, Route
from elrea.models.device import Device
from tests.cli.commands import Ended


def said(monkeypatch, capsys, words: list[str], typed: str) -> str:
    monkeypatch.setattr(sys, "argv", ["chat", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    chat.main()
    return str(capsys.readouterr().out)


def test_it_answers_as_the_ensemble_does(
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
    out = said(monkeypatch, capsys, words, "Say one.\n\nSay two.")
    assert out == f"{weighed[0]}\n{first}\n\n{weighed[1]}\n{second}\n\n"
    on = said(monkeypatch, capsys, [*words, "--turns"], "Say one.\nSay two.\n")
    asked = Example("x", "Say two.", "", "", history=(("user", "Say one."), ("assistant", first)))
    assert on.split("\n\n")[1].split("\n", 1)[1] == ensemble.generate([asked], short)[0]


def test_a_byte_order_mark_is_no_part_of_the_prompt(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffSay one.\n"))
    assert (chat._line(), chat._line()) == ("Say one.", None)


def test_the_members_that_weigh_most_are_named() -> None:
    weights = {"base": 0.2, "expert-0": 0.1, "expert-1": 0.65, "expert-2": 0.05}
    assert chat.members(Route(weights, [], 1)) == "expert-1 0.65, base 0.20, expert-0 0.10"
    assert chat.members(Route({"base": 0.0, "expert-0": 1.0}, [], 0)) == "expert-0 1.00"


def test_what_is_wrong_is_one_line(whole: Ended, tmp_path: Path, monkeypatch, capsys) -> None:
    run = str(whole.folder / "out")
    for words, line in (
        ([str(tmp_path)], "no ensemble.json there; give the folder ensemble/ of a run"),
        ([str(tmp_path / "none")], "none: no such folder; give a run's, as outputs/<day>/<time>"),
        ([run, "--top-k", "0"], "top_k=0: must be at least 1"),
        ([run, "--max-new-tokens", "0"], "max_new_tokens=0: must be at least 1"),
        ([run, "--backbone", str(tmp_path / "none")], "the ensemble's backbone 'small' is needed"),
        ([run, "--max-new-tokens", "500"], "the prompt: longer than the 400 tokens that fit"),
    ):
        with pytest.raises(SystemExit), told():
            said(monkeypatch, capsys, words, "Hi\n")
        err = capsys.readouterr().err
        assert line in err and len(err.splitlines()) == 1, err
