"""The same command again: stages are reused, interrupted ones resumed, and the results are the same."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cli.commands import QUIET, ROOT, Command, Ended, run


def states(ended: Ended) -> dict[str, str]:
    """The plan on the screen: stage -> reused or to do."""
    found: dict[str, str] = {}
    for line in map(str.strip, ended.out.splitlines()):
        for state in ("reused", "to do"):
            if line.endswith(state):
                found[line.split()[0]] = state
    return found


def test_the_same_command_reuses_every_stage(
    whole: Ended, words: list[str], tmp_path: Path
) -> None:
    again = run(tmp_path, *words)
    assert (again.code, again.err) == (0, "")
    assert set(states(again).values()) == {"reused"} and len(states(again)) == 7
    assert json.dumps(again.summary) == json.dumps(whole.summary)
    stages = json.loads((tmp_path / "out" / "summary.json").read_text())["stages"]
    assert all(stage["reused"] for stage in stages.values())
    for name in ("predictions.jsonl", "ensemble/ensemble.json"):
        assert (tmp_path / "out" / name).read_bytes() == (whole.folder / "out" / name).read_bytes()


def test_a_plan_makes_no_stage(whole: Ended, words: list[str], tmp_path: Path) -> None:
    planned = run(tmp_path, *words, "plan=true", "seed=1")
    assert set(states(planned).values()) == {"to do"} and len(states(planned)) == 7
    assert not (tmp_path / "out" / "summary.json").exists()
    planned = run(tmp_path, *words, "plan=true", "routing.temperature=2")
    assert [name for name, state in states(planned).items() if state == "to do"] == ["scores"]


def test_a_killed_run_is_resumed(whole: Ended, words: list[str], tmp_path: Path) -> None:
    """SIGKILL during the base adapter's training, then during the features, then during an expert's training."""
    store = tmp_path / "store"
    command = [*words, f"store={store}", QUIET, "training.checkpoint_minutes=1e-9"]

    def under_way(stage: str, inside: str) -> bool:
        return any(store.glob(f"{stage}/*.partial{inside}"))

    for stage, inside in (("base", "/checkpoint/*"), ("features", ""), ("adapter", "/checkpoint")):
        killed = Command(tmp_path, *command).signal_when(
            partial(under_way, stage, inside), signal.SIGKILL
        )
        assert killed.code == -signal.SIGKILL
        assert under_way(stage, ""), "killed too late for this test"
        assert not list(store.glob("scores/*/manifest.json"))
    assert states(killed)["clusters"] == "to do" and states(killed)["base"] == "reused"
    ended = run(tmp_path, *command)
    assert (ended.code, ended.err) == (0, "")
    assert states(ended)["clusters"] == "reused" and states(ended)["scores"] == "to do"
    assert json.dumps(ended.summary) == json.dumps(whole.summary)
    ensemble = json.loads((tmp_path / "out" / "ensemble" / "ensemble.json").read_text())
    assert ensemble == json.loads((whole.folder / "out/ensemble/ensemble.json").read_text())
    assert not list(store.rglob("*.partial"))


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_stage_is_reported_and_made_again(
    whole: Ended, words: list[str], tmp_path: Path, cut: bool
) -> None:
    shutil.copytree(whole.folder / "store", tmp_path / "store")
    key = whole.summary["stages"]["expert-1"]["key"]
    file = tmp_path / "store" / "adapter" / key / "adapter" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[: 100 if cut else None])
    ended = run(tmp_path, *words, f"store={tmp_path / 'store'}", QUIET)
    assert ended.code == 0
    (line,) = ended.err.splitlines()
    assert line.startswith("stage adapter is damaged and has to be made again: ")
    assert str(file) in line
    assert [n for n, state in states(ended).items() if state == "to do"] == ["expert-1"]
    assert json.dumps(ended.summary) == json.dumps(whole.summary)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_is_one_line(
    number: int, code: int, said: str, words: list[str], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    stopped = Command(tmp_path, *words, f"store={store}", QUIET).signal_when(
        lambda: any(store.glob("base/*.partial/checkpoint")), number
    )
    assert stopped.code == code
    assert stopped.err == f"error: {said}; the same command resumes from the last checkpoint\n"


DROPPED = """
import os, signal, sys, time
from elrea.commands.exit import one_line_errors

class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)  # Python drops what is raised here

with one_line_errors():
    late = Late()
    del late
    try:
        time.sleep(30)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # a second one does not interrupt the clean-up
        print("cleaned up")
"""


def test_a_signal_ends_the_process_also_where_python_drops_its_exception() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=25, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (143, "cleaned up\n")
    assert done.stderr == "error: terminated; the same command resumes from the last checkpoint\n"
