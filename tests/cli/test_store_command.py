"""`elrea store ls|verify|gc`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elrea.commands.jobs.sweep import Record
from elrea.commands.store import main
from elrea.errors import ConfigError, StoreError
from elrea.store.lock import Lease
from elrea.store.stage import Stage, Store
from elrea.store.uses import RECORDS, record_use, recorded_uses
from tests.store.stages import two_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run that uses the first of three stages, and a running one that uses the second; all are old."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ELREA_STORE", "store")
    made = stages(tmp_path)
    for stage in made:
        stage.run(two_files)
    run = tmp_path / "outputs/day/time"
    run.mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"stages": {"base": {"key": made[0].key}}}))
    with Record(tmp_path / "multirun/day/time/0", {"words": []}) as record:
        record.begin("k", {"base": made[1].key})
    age(tmp_path / "store")
    return tmp_path


def stages(home: Path) -> list[Stage]:
    return [Store(home / "store").stage("base", 1, {"seed": seed}) for seed in range(3)]


def age(store: Path, hours: float = 30) -> None:
    then = time.time() - 3600 * hours
    for path in store.rglob("*"):
        os.utime(path, (then, then))


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["store", *words])
    main()


def there(home: Path) -> list[bool]:
    return [stage.done() for stage in stages(home)]


def test_ls(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    begun = Store(home / "store").stage("adapter", 1, {})
    with pytest.raises(ZeroDivisionError):
        begun.run(lambda _work: 1 // 0)  # type: ignore[arg-type]
    command(monkeypatch, "ls")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "folder", "MB", "made", "(UTC)", "seconds", "used", "by"]
    assert lines[1].split()[:2] == ["adapter", f"adapter/{begun.key}"]
    assert lines[1].endswith("unfinished")
    uses = {line.split()[1]: line.split("  ")[-1] for line in lines[2:-1]}
    assert uses == {
        f"base/{stage.key}": f"{count} of 2 runs"
        for stage, count in zip(stages(home), (1, 1, 0), strict=True)
    }
    assert lines[-1].startswith("4 in all, 0.00 MB")


def test_ls_has_the_names_of_the_plan(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """From the runs that use a stage; of one that no run uses, the name that is a part of its key."""
    store = Store(home / "store")
    made = [
        store.stage("features", 1, {"examples": "train"}), store.stage("features", 1, {"examples": "test"}),
        store.stage("adapter", 1, {"name": "expert-7"}), store.stage("adapter", 1, {"name": "x"}),
    ]  # fmt: skip
    for stage in made:
        stage.run(two_files)
    for run, prefix in (("one", ""), ("two", "instruction_embedding/")):
        names = {
            f"{prefix}features-train": made[0],
            f"{prefix}features-test": made[1],
            "x": made[3],
        }
        (home / "outputs" / run).mkdir()
        keys = {name: {"key": stage.key} for name, stage in names.items()}
        (home / "outputs" / run / "summary.json").write_text(json.dumps({"stages": keys}))
    command(monkeypatch, "ls")
    lines = capsys.readouterr().out.splitlines()
    for stage, name in zip(
        made,
        (
            "features-train, instruction_embedding/features-train",
            "features-test, instruction_embedding/features-test",
            "expert-7",
            "x",
        ),
        strict=True,
    ):
        (line,) = (line for line in lines if f"{stage.name}/{stage.key}" in line)
        assert line.startswith(f"{name}  ")


def test_verify(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, "verify")
    assert ended.value.code == 0 and capsys.readouterr().out.endswith("3 stages, 0 damaged\n")
    first, second, third = (stage.folder for stage in stages(home))
    (first / "a.bin").write_bytes(b"012345678_")
    (second / "more").write_text("")
    text = (third / "manifest.json").read_text()
    (third / "manifest.json").write_text(text.replace('"seed": 2', '"seed": 3'))
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, "verify")
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1 and lines[-1] == "3 stages, 3 damaged"
    for path in (first / "a.bin", second / "more", third / "manifest.json"):
        assert sum(line.startswith(f"{path.relative_to(home)}") for line in lines) == 1


def test_gc_shows_what_is_unused_and_removes_it_with_yes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    command(monkeypatch, "gc")
    unused = stages(home)[2].folder.relative_to(home)
    out = capsys.readouterr().out
    assert out.startswith(f"unused: {unused} (") and "1 of 3 (stages of 2 runs are kept)" in out
    assert there(home) == [True] * 3
    command(monkeypatch, "gc", "--yes")
    assert there(home) == [True, True, False]
    assert len(list((home / "store/base").iterdir())) == 2


def test_gc_keeps_what_was_used_recently(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run outside the known folders may use it."""
    stages(home)[2].run(two_files)
    command(monkeypatch, "gc", "--yes")
    assert there(home) == [True] * 3
    command(monkeypatch, "gc", "--yes", "--hours", "0")
    assert there(home) == [True, True, False]


HOLD = """
import sys, time
from pathlib import Path
from elrea.store.stage import Store

def make(work):
    (work / "half").write_text("half")
    print("making", flush=True)
    time.sleep(60)

Store(Path(sys.argv[1])).stage("base", 1, {"seed": int(sys.argv[2])}).run(make)
"""


def test_gc_keeps_what_a_running_job_has_locked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old the files are; they are removed after the job has died."""
    job = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home / "store"), "9"], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert job.stdout is not None and job.stdout.readline() == b"making\n"
        age(home / "store")
        command(monkeypatch, "gc", "--yes", "--hours", "0")
        assert there(home) == [True, True, False]
        (left,) = home.glob("store/base/*.partial")
        assert (left / "half").exists()
    finally:
        job.kill()
        job.wait()
    command(monkeypatch, "gc", "--yes", "--hours", "0")
    assert not left.exists() and len(list((home / "store/base").iterdir())) == 2


def test_gc_checks_the_lock_again_before_it_removes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A job locks the stage after gc listed it and before gc removes it."""
    third = stages(home)[2]
    lease = Lease(third.folder.with_name(f"{third.key}.lease"))
    monkeypatch.setattr("elrea.commands.store.Entry.locked", lambda _: not lease.acquire())
    command(monkeypatch, "gc", "--yes")
    assert third.done() and "0 of 3" in capsys.readouterr().out
    lease.release()


def test_gc_refuses_to_guess_the_uses(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    for words, said in (
        (["--runs", str(tmp_path / "none")], "there are no runs"),
        (["--runs", "gone"], "gone: no such folder"),
        (["--store", "gone"], "gone: no such folder"),
    ):
        with pytest.raises(StoreError, match=said):
            command(monkeypatch, "gc", "--yes", *words)
    (home / "outputs/day/time/summary.json").write_text('{"stages": 3}')
    with pytest.raises(
        StoreError, match=r"summary\.json: does not list the stages that its run uses"
    ):
        command(monkeypatch, "gc", "--yes")
    assert there(home) == [True] * 3


def made_elsewhere(folder: Path, store: Path) -> Stage:
    """A stage of an old run in a folder of which gc knows nothing but what the run recorded."""
    stage = Store(store).stage("base", 1, {"seed": "elsewhere"})
    folder.mkdir(parents=True)
    with Record(folder, {"words": []}, store=store) as record:
        record.begin("k", {"base": stage.key})
        stage.run(two_files)
    age(store)
    return stage


def test_gc_keeps_the_stages_of_runs_in_other_folders(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Another user's or another working folder's; until the run's folder is removed."""
    other = home.parent / f"{home.name}-other" / "run"
    stage = made_elsewhere(other, home / "store")
    command(monkeypatch, "ls")
    assert any(stage.key in x and "1 of 3 runs" in x for x in capsys.readouterr().out.splitlines())
    command(monkeypatch, "gc", "--yes", "--hours", "0")
    out = capsys.readouterr().out
    assert stage.done() and there(home) == [True, True, False]
    assert "stages of 3 runs are kept" in out
    assert f"runs: 1 recorded in store/{RECORDS}; all below outputs, multirun\n" in out
    (found,) = recorded_uses(home / "store")
    assert (found.run, found.stages) == (other.resolve(), {"base": stage.key})
    shutil.rmtree(other)
    command(monkeypatch, "gc", "--yes")
    assert not stage.done() and there(home) == [True, True, False]
    assert recorded_uses(home / "store") == []


def test_gc_of_a_store_without_runs_of_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the records tell of a run."""
    store = tmp_path / "store"
    stage = made_elsewhere(tmp_path / "elsewhere", store)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command(monkeypatch, "gc", "--yes", "--store", str(store), "--hours", "0")
    assert stage.done()
    (store / RECORDS / recorded_uses(store)[0].record.name).write_text('{"run": "x"}')
    with pytest.raises(StoreError, match="does not list the stages that its run uses"):
        command(monkeypatch, "gc", "--yes", "--store", str(store))
    assert stage.done()


def test_gc_keeps_what_runs_of_other_machines_use(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Their folders may be on a disk that is not here."""
    other = home / "elsewhere"
    monkeypatch.setattr("socket.gethostname", lambda: "node17")
    stage = made_elsewhere(other, home / "store")
    shutil.rmtree(other)
    monkeypatch.setattr("socket.gethostname", lambda: "login")
    command(monkeypatch, "gc", "--yes")
    out = capsys.readouterr().out
    assert stage.done() and "some of them ran on node17, and their folders are not here" in out
    assert max(map(len, out.splitlines())) <= 100
    monkeypatch.setattr("socket.gethostname", lambda: "node17")
    command(monkeypatch, "gc", "--yes")
    assert not stage.done()


def test_gc_says_that_an_old_store_has_no_records(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    command(monkeypatch, "gc", "--runs", "outputs")
    out = " ".join(capsys.readouterr().out.split())
    assert "all below outputs the store is of an older version, which recorded no runs" in out


def test_a_folder_that_may_not_be_looked_into_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's home; the superuser, who may run the tests, may look."""

    def refuse(_: Path) -> None:
        raise PermissionError

    record_use(tmp_path, tmp_path / "gone", {"base": "0" * 16})
    (found,) = recorded_uses(tmp_path)
    assert found.gone
    monkeypatch.setattr(Path, "lstat", refuse)
    assert not found.gone


def test_a_run_replaces_its_record_and_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    record_use(tmp_path, tmp_path / "a", {"base": "1" * 16})
    (first,) = recorded_uses(tmp_path)
    left = first.record.with_name(f".{first.record.name}.12.tmp")
    others = first.record.with_name(".0.json.12.tmp")
    left.touch()
    others.touch()
    record_use(tmp_path, tmp_path / "a", {"base": "2" * 16})
    (second,) = recorded_uses(tmp_path)
    assert second.stages == {"base": "2" * 16} and second.record == first.record
    assert not left.exists() and others.exists()
    (tmp_path / "file").touch()
    record_use(tmp_path / "file", tmp_path / "a", {"base": "3" * 16})  # cannot be written: no error


def test_gc_keeps_what_no_store_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Another folder was given as the store, or other files are in the store."""
    key, other = "0123456789abcdef", "f" * 16
    kept = [
        "photos/a.jpg", f"photos/{key}/a.jpg", f"photos/{other}", f"photos/.{key}.jpg", f"photos/{key}.partial.jpg",
        f"photos/x{key}.partial/a.jpg", f"Photos/{key}.partial/a.jpg", "thesis/.git/HEAD", "outputs/a/summary.json",
    ]  # fmt: skip
    gone = [
        f"base/{key}.{other}.partial/half", f"base/{key}.lease.{other}/x", f"base/{other}.gone/a",
        f"base/.{key}.tries.json.12.tmp", f"base/{key}.tries.json", f"base/{other}.damaged/a",
    ]  # fmt: skip
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"stages": {}}')
    made = Store(tmp_path / "elsewhere").stage("base", 1, {})
    made.run(two_files)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / made.key).symlink_to(made.folder)
    age(tmp_path)
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "gc", "--yes", "--store", ".", "--hours", "0")
    assert "2 of 5" in capsys.readouterr().out
    assert all((tmp_path / name).is_file() for name in kept) and made.done()
    assert (tmp_path / "linked" / made.key).is_symlink()
    assert not any((tmp_path / name).exists() for name in gone)


@pytest.mark.parametrize("what", ["ls", "verify", "gc"])
def test_an_empty_store_name_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As a Path it would be the working folder."""
    with pytest.raises(ConfigError, match="give the folder of the store"):
        command(monkeypatch, what, "--yes", "--store", "")
    monkeypatch.setenv("ELREA_STORE", " ")
    with pytest.raises(ConfigError, match="give the folder of the store"):
        command(monkeypatch, what, "--yes")


@pytest.mark.parametrize("hours", ["-5", "nan", "inf"])
def test_hours_must_be_0_or_more(home: Path, monkeypatch: pytest.MonkeyPatch, hours: str) -> None:
    with pytest.raises(ConfigError, match=f"--hours {hours}: must be a number of hours, 0 or more"):
        command(monkeypatch, "gc", "--yes", "--hours", hours)
    assert there(home) == [True] * 3


def test_a_stage_without_a_manifest_is_damaged_and_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    third = stages(home)[2].folder
    (third / "manifest.json").unlink()
    with pytest.raises(SystemExit):
        command(monkeypatch, "verify")
    assert capsys.readouterr().out.endswith("3 stages, 1 damaged\n")
    command(monkeypatch, "gc", "--yes", "--hours", "0")
    assert (third / "a.bin").exists()
