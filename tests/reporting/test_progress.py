"""The progress bar: one line in files and pipes, a moving bar of at most 100 columns on terminals."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from elrea.models.log import PASSES, SILENT
from elrea.reporting import progress
from elrea.reporting.log import Logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the bar reads; tests change it."""
    now = [100.0]
    monkeypatch.setattr("elrea.reporting.progress.monotonic", lambda: now[0])
    return now


def test_one_line_at_the_end_without_a_terminal(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with progress.bar("base adapter", 12_000) as advance:
        for _ in range(12):
            advance(1000)
        assert capsys.readouterr().out == "", "nothing is printed before the end"
        clock[0] += 41
    assert capsys.readouterr().out == "base adapter: 12,000 examples in 41 s (293/s)\n"


def test_one_unit_is_in_the_singular(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with progress.bar("train base", 1, "examples x epochs") as advance:
        clock[0] += 2
        advance(1)
    assert capsys.readouterr().out == "train base: 1 example x epoch in 2.0 s (0.50/s)\n"


def test_a_failed_task_prints_how_much_was_done(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with (
        pytest.raises(RuntimeError, match="boom"),
        progress.bar("gradients", 50, unit="prompts") as advance,
    ):
        advance(20)
        clock[0] += 8
        raise RuntimeError("boom")
    expected = "gradients: stopped at 20 of 50 prompts after 8.0 s (2.5/s)\n"
    assert capsys.readouterr().out == expected


def test_an_empty_task_does_not_divide_by_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("experts", 0):
        pass
    assert re.fullmatch(r"experts: 0 examples in 0\.\d s \(-/s\)\n", capsys.readouterr().out)


def test_forced_colour_does_not_animate_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.bar("base [adapter]", 10) as advance:
        advance(10)
    out = capsys.readouterr().out
    assert out.startswith("base [adapter]: 10 examples in ") and "\x1b" not in out


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_shows_rate_and_time_left(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    now = [0.0]
    screen = Terminal()
    console = Console(file=screen, width=width, force_terminal=True, get_time=lambda: now[0])
    with progress.bar("an adapter with a name that is far too long", 1000, console=console) as go:
        for _ in range(3):
            now[0] += 1.0
            go(250)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    lines = re.split(r"[\r\n]+", shown)
    assert max(len(line.rstrip()) for line in lines[:-2]) <= width
    assert "\x1b[3" not in screen.getvalue(), "NO_COLOR must mean no colour"
    assert lines[-2].startswith("an adapter with a name that is far too long: 750 examples in")
    if width == 100:
        moving = [line for line in lines if "750/1,000 examples" in line]
        assert moving and "250/s" in moving[-1] and "1.0 s left" in moving[-1]


def test_the_screen_is_at_most_100_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert progress.screen().width == 100
    monkeypatch.setenv("COLUMNS", "250")
    assert progress.screen().width == 100
    monkeypatch.setenv("COLUMNS", "72")
    assert progress.screen().width == 72


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [
        (12_930, 10, "1,293/s"),
        (95, 10, "9.5/s"),
        (1, 4, "0.25/s"),
        (5, 0.001, "-/s"),
        (0, 9, "-/s"),
    ],
)
def test_rates(count: int, seconds: float, text: str) -> None:
    assert progress.rate(count, seconds) == text


def test_a_training_counts_examples_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    logs = Logs(progress.Terminal(), SILENT)
    with logs.task("base", "train base", 30, 4, PASSES) as task:
        task.advance(30)
    with logs.task("answers-base", "answers of base", 2, unit="texts") as task:
        task.advance(2)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("train base: 30 examples x epochs in ")
    assert second.startswith("answers of base: 2 texts in ")
