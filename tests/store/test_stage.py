"""Stages are made once, survive kills at any point, and notice damage."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from elrea.errors import StoreError
from elrea.store.files import UMASK, publish, read_json
from elrea.store.stage import Store
from tests.store.stages import INPUTS, stage, two_files

ROOT = Path(__file__).parents[2]


def never(work: Path) -> None:
    raise AssertionError("a finished stage was made again")


def python(script: str, *args: object) -> subprocess.Popen[str]:
    """Another process, from the project's folder."""
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE)


def wait_for(there: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


# --- keys


def test_a_key_is_a_function_of_name_version_and_inputs_only(tmp_path: Path) -> None:
    # Recorded: another key for the same inputs would silently retrain everybody's stages.
    assert stage(tmp_path).key == "2df67b6f56cf2081"
    swapped = dict(reversed(INPUTS.items()))
    assert Store(tmp_path / "elsewhere").stage("features", 1, swapped).key == stage(tmp_path).key
    assert Store(tmp_path).stage("features", 1, {**INPUTS, "layers": (1, 2)}).key == (
        stage(tmp_path).key
    )


@pytest.mark.parametrize(
    "other",
    [
        ("features", 2, INPUTS),
        ("clusters", 1, INPUTS),
        ("features", 1, {**INPUTS, "rate": 0.1000000000000001}),
        ("features", 1, {**INPUTS, "rate": "0.1"}),
        ("features", 1, {**INPUTS, "layers": [2, 1]}),
        ("features", 1, {**INPUTS, "more": None}),
    ],
)
def test_every_input_changes_the_key(tmp_path: Path, other: tuple) -> None:
    assert Store(tmp_path).stage(*other).key != stage(tmp_path).key


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        ({"a": {"b": [0.0, float("nan")]}}, "a.b[1]"),
        ({"a": {1: "x"}}, "key 1"),
        ({"a": Path("x")}, "a is of type"),
    ],
)
def test_inputs_that_are_not_json_are_named(tmp_path: Path, inputs: dict, where: str) -> None:
    with pytest.raises(StoreError, match="inputs of stage features") as caught:
        Store(tmp_path).stage("features", 1, inputs)
    assert where in str(caught.value)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "A"])
def test_a_name_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="in a name"):
        Store(tmp_path).stage(name, 1, {})


# --- making and reusing


def test_made_once_and_reused(tmp_path: Path) -> None:
    first = stage(tmp_path)
    assert not first.done()
    assert first.run(two_files) == first.folder
    assert not first.reused and first.done()
    assert (first.folder / "a.bin").read_bytes() == b"0123456789"

    second = stage(tmp_path)
    assert second.run(never) == first.folder
    assert second.reused and second.seconds == first.seconds


def test_the_manifest_identifies_the_stage(tmp_path: Path) -> None:
    manifest = read_json(stage(tmp_path).run(two_files) / "manifest.json")
    assert manifest["name"] == "features" and manifest["version"] == 1
    assert manifest["inputs"] == INPUTS and manifest["key"] == stage(tmp_path).key
    assert sorted(manifest["files"]) == ["a.bin", "sub/b.txt"]
    assert manifest["files"]["a.bin"] == {
        "bytes": 10,
        "sha256": "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
    }
    assert manifest["versions"]["python"].startswith("3.")
    assert manifest["made"].endswith("+00:00") and manifest["seconds"] >= 0


def test_only_the_finished_stage_remains(tmp_path: Path) -> None:
    made = stage(tmp_path)
    made.run(two_files)
    assert [path.name for path in made.folder.parent.iterdir()] == [made.key]


def test_a_failed_stage_is_resumed(tmp_path: Path) -> None:
    def fail(work: Path) -> None:
        (work / "half").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage(tmp_path).run(fail)
    assert not stage(tmp_path).done()

    def finish(work: Path) -> None:
        assert (work / "half").read_text() == "half"

    stage(tmp_path).run(finish)
    assert stage(tmp_path).done()


@pytest.mark.parametrize("kind", ["link", "manifest"])
def test_files_that_the_manifest_cannot_list_are_refused(tmp_path: Path, kind: str) -> None:
    def make(work: Path) -> None:
        if kind == "link":
            (work / "link").symlink_to(tmp_path)
        else:
            (work / "manifest.json").write_text("{}")

    with pytest.raises(StoreError, match="link" if kind == "link" else "the name is reserved"):
        stage(tmp_path).run(make)
    assert not stage(tmp_path).done()


# --- kills and other processes

RESUMABLE = """
import os, signal, sys, time
from pathlib import Path
from elrea.store.stage import Store

def make(work):
    checkpoint = work / "expert_00" / "checkpoint" / "step"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(start, 6):
        checkpoint.write_text(str(step + 1))
        with Path(sys.argv[2]).open("a") as log:
            log.write(f"{step} ")
        time.sleep(0.1)
        if step == 3 and start == 0:
            (work / ".curve.json.1.tmp").write_text("half of a file")
            os.kill(os.getpid(), signal.SIGKILL)
    (work / "expert_00" / "weights").write_text("done")

Store(Path(sys.argv[1])).stage("experts", 1, {}).run(make)
"""


def test_a_killed_stage_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    first = python(RESUMABLE, tmp_path, steps)
    assert first.wait(30) == -signal.SIGKILL
    made = Store(tmp_path).stage("experts", 1, {})
    assert not made.done() and len(list(made.folder.parent.glob(f"{made.key}.*.partial"))) == 1

    second = python(RESUMABLE, tmp_path, steps)
    assert second.wait(30) == 0, second.communicate()[1]
    assert steps.read_text().split() == list("012345")
    assert made.done()
    assert [path.name for path in (made.folder / "expert_00").iterdir()] == ["weights"]
    assert 0.4 < made.seconds < 20  # two steps of 0.1 s here, at least three before the kill


KILLED_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
from elrea.store.stage import Store

def make(work):
    (work / "checkpoint").mkdir()
    (work / "result").write_text("whole")

Path.rename = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
Store(Path(sys.argv[1])).stage("experts", 1, {}).run(make)
"""


def test_a_stage_killed_before_the_rename_is_not_made_again(tmp_path: Path) -> None:
    assert python(KILLED_BEFORE_RENAME, tmp_path).wait(30) == -signal.SIGKILL
    made = Store(tmp_path).stage("experts", 1, {})
    assert not made.done()
    made.run(never)
    assert [path.name for path in sorted(made.folder.iterdir())] == ["manifest.json", "result"]


SLOW = """
import sys, time
from pathlib import Path
from elrea.store.stage import Store

def make(work):
    with Path(sys.argv[2]).open("a") as log:
        log.write("made ")
    time.sleep(float(sys.argv[3]))
    (work / "result").write_text("whole")

stage = Store(Path(sys.argv[1])).stage("experts", 1, {})
assert (stage.run(make) / "result").read_text() == "whole"
sys.exit(10 if stage.reused else 0)
"""


def test_one_process_makes_the_stage_and_the_others_wait(tmp_path: Path) -> None:
    log = tmp_path / "log"
    others = [python(SLOW, tmp_path, log, 0.5) for _ in range(3)]
    assert sorted(other.wait(30) for other in others) == [0, 10, 10]
    assert log.read_text() == "made "


def test_a_waiting_process_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = python(SLOW, tmp_path, log, 60)
    wait_for(log.exists)
    second = python(SLOW, tmp_path, log, 0)
    time.sleep(0.5)
    assert second.poll() is None, "it did not wait"
    first.kill()
    assert second.wait(30) == 0, second.communicate()[1]
    assert log.read_text() == "made made "
    first.wait()


# --- the disk


def full_device(work: Path) -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x")


def full_for_numpy(work: Path) -> None:
    raise OSError("100000 requested and 8176 written")


def full_for_safetensors(work: Path) -> None:
    try:
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    except RuntimeError as error:
        raise ValueError("cannot save") from error


def full_quota(work: Path) -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize("make", [full_device, full_for_numpy, full_for_safetensors, full_quota])
def test_a_full_disk_is_one_line_and_keeps_the_files(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    if make is full_device and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def half(work: Path) -> None:
        (work / "half").write_text("half")
        make(work)

    with pytest.raises(StoreError, match="no space left for stage features in") as caught:
        stage(tmp_path).run(half)
    assert "\n" not in str(caught.value)
    (partial,) = stage(tmp_path).folder.parent.glob("*.partial")
    assert (partial / "half").exists()


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match=f"cannot write to {tmp_path / 'store'}"):
        stage(tmp_path / "store").run(two_files)


def test_other_errors_are_passed_on(tmp_path: Path) -> None:
    def make(work: Path) -> None:
        (work / "nothing").read_text()

    with pytest.raises(FileNotFoundError):
        stage(tmp_path).run(make)


def test_others_may_read_as_far_as_the_umask_allows(tmp_path: Path) -> None:
    """safetensors writes files that only their owner may read."""

    def make(work: Path) -> None:
        save_file({"a": torch.zeros(1)}, work / "a.safetensors")
        publish(
            work / "adapter", lambda new: save_file({"b": torch.ones(1)}, new / "b.safetensors")
        )

    stage = Store(tmp_path).stage("base", 1, {})
    stage.run(make)
    modes = {path.stat().st_mode & 0o777 for path in stage.folder.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~UMASK}
