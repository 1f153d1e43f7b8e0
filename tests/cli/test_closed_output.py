"""A reader that has gone, as after `| head`, is no error: no command says a word about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import ROOT

BODIES = {
    "nothing": "pass",
    "few": "print('one')",
    "many": "[print('a line', n) for n in range(100_000)]",
    "flushed": "[print('a line', n, flush=True) for n in range(100)]",
    "rich": "from elrea.reporting.progress import say, screen\n    say(screen(), 'a line')",
    "exit": "print('one'); sys.exit(0)",
}
PROGRAM = """
import sys
from elrea.commands.exit import one_line_errors
with one_line_errors():
    {body}
"""


def closed(*words: str) -> tuple[int, str]:
    """Exit code and standard error of a Python program whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [sys.executable, *words], stdout=writing, stderr=subprocess.PIPE, env=environment, text=True, timeout=120,
            restore_signals=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("body", BODIES)
def test_whatever_is_printed(body: str) -> None:
    code = 0 if body == "nothing" else 128 + signal.SIGPIPE
    assert closed("-c", PROGRAM.format(body=BODIES[body])) == (code, "")


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "elrea", "store", "ls"],
        ["-m", "elrea", "--help"],
        ["run.py", "--help"],
        ["run.py", "plan=true", "until=base"],
    ],
)
def test_commands(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".elrea").mkdir()
    words = [str(ROOT / word) if word == "run.py" else word for word in words]
    code, err = closed(*words)
    assert (code in (0, 141), err) == (True, "")


def test_an_error_is_still_said() -> None:
    """Also one of another pipe, whose end is no end of the output."""
    body = "raise __import__('elrea.errors').errors.DataError('no such file')"
    assert closed("-c", PROGRAM.format(body=body)) == (1, "error: no such file\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body="raise BrokenPipeError(32, 'Broken pipe')")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: system: Broken pipe\n")
