"""`elrea chat RUN` on a finished run: it answers line by line, and names the members that answer."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import chat
from elrea.commands.exit import one_line_errors
from elrea.data.examples import Example
from elrea.data.readers.rows import RowReader
from elrea.data.templates import PlainTemplate
from elrea.errors import DataError
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
    before = (("user", "Say one."), ("assistant", first.strip()))
    asked = Example("x", "Say two.", "", "", history=before)
    assert on.split("\n\n")[1].split("\n", 1)[1] == ensemble.generate([asked], short)[0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Talker:
    """Answers with what it was asked; a prompt of more than three turns before it is too long."""

    def __init__(self, stops: int = 0, answer: str = "answer") -> None:
        self.asked: list[Example] = []
        self.stops, self.answer = stops, answer

    def check(self, prompts: list[Example], settings: Decoding) -> None:
        if len(prompts[0].history) > 4 or "long" in prompts[0].instruction:
            raise DataError("the prompt: longer than fits")

    def route(self, prompts: list[Example]) -> list[Route]:
        return [Route({"base": 1.0}, [], 0)]

    def generate(
        self, prompts: list[Example], settings: Decoding, *, routes: Any, tell: Any
    ) -> list[str]:
        self.asked += prompts
        tell(0, "an")
        if len(self.asked) == self.stops:
            raise KeyboardInterrupt
        tell(0, "swer")
        return [self.answer]


def talked(
    monkeypatch, talker: Talker, lines: list[str], words: list[str], terminal: bool = True
) -> None:
    """Runs the command with this ensemble; `lines` are typed, "^C" is Ctrl-C."""
    given = iter(lines)

    def typed(_prompt: str) -> str:
        line = next(given, None)
        if line is None:
            raise EOFError
        if line == "^C":
            raise KeyboardInterrupt
        return line

    source = Terminal() if terminal else io.StringIO("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(sys, "stdin", source)
    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(chat, "load_ensemble", lambda _given: talker)
    chat.main(["a run", *words])


def histories(talker: Talker) -> list[int]:
    return [len(prompt.history) for prompt in talker.asked]


def test_a_terminal_keeps_the_conversation(monkeypatch, capsys) -> None:
    talker = Talker()
    talked(monkeypatch, talker, ["a", "b", "c", "d", "/new", "e"], [])
    assert histories(talker) == [0, 2, 4, 4, 0], "the fourth forgets the first turn"
    assert talker.asked[3].history[0] == ("user", "b")
    both = capsys.readouterr()
    assert "(forgets the first 1 of 3 turns: too long)" in both.err and "/help" in both.out
    for words in (["--no-history"], ["--turns", "--no-history"]):
        talker = Talker()
        if len(words) > 1:
            with pytest.raises(SystemExit):
                talked(monkeypatch, talker, ["a"], words)
            continue
        talked(monkeypatch, talker, ["a", "b"], words)
        assert histories(talker) == [0, 0]


def test_lines_of_a_pipe_are_prompts(monkeypatch) -> None:
    """Each is alone, and none is a command."""
    talker = Talker()
    talked(monkeypatch, talker, ["a", "/new", "/exit"], [], terminal=False)
    assert [prompt.instruction for prompt in talker.asked] == ["a", "/new", "/exit"]
    assert histories(talker) == [0, 0, 0]
    talker = Talker()
    talked(monkeypatch, talker, ["a", "b"], ["--turns"], terminal=False)
    assert histories(talker) == [0, 2]
    with pytest.raises(DataError):
        talked(monkeypatch, Talker(), ["a long one"], [], terminal=False)


def test_a_later_turn_is_worded_as_the_same_row_in_training(monkeypatch) -> None:
    """A model's text begins with the space that stands before a response."""
    talker = Talker(answer=" an answer\n")
    talked(monkeypatch, talker, ["One?", "Two?"], [])
    roles = ("user", "assistant", "user", "assistant")
    texts = ("One?", "an answer", "Two?", "another")
    messages = [{"role": r, "content": text} for r, text in zip(roles, texts, strict=True)]
    row = RowReader().read({"messages": messages}, "x.jsonl:1", "x.jsonl", 1)
    asked, learned = (PlainTemplate().render(e, shots=False) for e in (talker.asked[1], row))
    assert asked.text == learned.text == "One? an answer\n\nTwo?"


def test_the_system_prompt_is_the_first_turn(monkeypatch) -> None:
    talker = Talker()
    talked(monkeypatch, talker, ["a", "/new", "b"], ["--system", "Be short."])
    assert [prompt.history for prompt in talker.asked] == [(("system", "Be short."),)] * 2
    text = PlainTemplate().render(talker.asked[0], shots=False).text
    assert text == "Be short.\n\na"


def test_ctrl_c_stops_the_answer_and_then_the_chat(monkeypatch, capsys) -> None:
    talker = Talker(stops=1)
    with one_line_errors(resumable=False), pytest.raises(SystemExit) as ended:
        talked(monkeypatch, talker, ["a", "b", "^C", "c"], [])
    assert ended.value.code == 130 and [p.instruction for p in talker.asked] == ["a", "b"]
    assert talker.asked[1].history == (("user", "a"), ("assistant", "an")), "what was written stays"
    both = capsys.readouterr()
    assert "(stopped)" in both.out and both.err == "" and both.out.endswith("\n")


def test_commands_and_errors_do_not_end_the_conversation(monkeypatch, capsys) -> None:
    talker = Talker()
    talked(monkeypatch, talker, ["a", "/nwe", "a long one", "b", "/exit", "c"], [])
    assert [prompt.instruction for prompt in talker.asked] == ["a", "b"]
    assert histories(talker) == [0, 2], "an error forgets nothing"
    both = capsys.readouterr()
    assert "/nwe: no such command; did you mean /new?" in both.out and "begin a new" in both.out
    assert both.err == "error: the prompt: longer than fits\n"


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
