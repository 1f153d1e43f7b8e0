"""Leases between real processes: killed, suspended, on another machine, and many at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from elrea.errors import StoreError
from elrea.store import lock
from elrea.store.lock import Lease, read_lease
from elrea.store.stage import Store
from tests.store.test_stage import never, wait_for

ROOT = Path(__file__).parents[2]
BEAT, LIMIT = 0.1, 1.0
HEAD = f"""
import sys, time
from pathlib import Path
from elrea.store import lock
from elrea.errors import StoreError
from elrea.store.stage import Store
lock.BEAT, lock.LIMIT, lock.POLL = {BEAT}, {LIMIT}, 0.02
folder = Path(sys.argv[1])
"""
HOLD = HEAD + "lock.Lease(folder / 'lease').acquire(); (folder / 'held').touch(); time.sleep(60)"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT", BEAT), ("LIMIT", LIMIT), ("POLL", 0.02)):
        monkeypatch.setattr(lock, name, seconds)


def start(script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease `folder / "lease"`."""
    other = start(HOLD, folder)
    try:
        wait_for((folder / "held").exists)
        yield other
    finally:
        other.kill()
        other.communicate()


def seconds_to_acquire(path: Path) -> float:
    began = time.monotonic()
    with Lease(path):
        return time.monotonic() - began


def test_a_lease_names_its_holder_and_is_removed_on_release(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with Lease(path) as held:
        written = json.loads(path.read_text())
        assert written["pid"] == os.getpid() and written["host"][0] == os.uname().nodename
        state = read_lease(path)
        assert state is not None and state.token == held.token and state.alive
        assert not Lease(path).acquire(wait=False), "this process holds it"
        held.check()
        touched = state.touched
        wait_for(lambda: (now := read_lease(path)) is not None and now.touched > touched)
    assert not list(tmp_path.iterdir())


def test_a_killed_process_frees_it_at_once(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert not Lease(tmp_path / "lease").acquire(wait=False)
        other.kill()  # nobody has waited for it, so that it is a zombie
        assert seconds_to_acquire(tmp_path / "lease") < LIMIT / 2
    assert [path.name for path in tmp_path.iterdir()] == ["held"]


def test_a_reused_process_id_is_not_the_holder(tmp_path: Path) -> None:
    dead = {**lock.this_process(), "started": "1", "token": "0" * 16}
    (tmp_path / "lease").write_text(json.dumps(dead))
    assert seconds_to_acquire(tmp_path / "lease") < LIMIT / 2


def forged(path: Path, token: str = "f" * 16) -> None:
    path.write_text(json.dumps({"host": ["elsewhere", "", 0], "pid": 1, "started": "1", "token": token}))  # fmt: skip


def test_on_another_machine_only_the_heartbeat_counts(tmp_path: Path) -> None:
    """Taken when it was not touched for so long, whatever the server's clock; not while it is touched."""
    path = tmp_path / "lease"
    forged(path)
    os.utime(path, (0, 0))  # a file server whose clock is decades behind
    stop = threading.Event()

    def beats() -> None:
        for number in range(1_000_000):
            if stop.wait(BEAT):
                return
            os.utime(path, (number, number))

    beating = threading.Thread(target=beats)
    beating.start()
    assert not Lease(path).acquire(wait=False), "it was touched"
    taker, took = Lease(path), threading.Event()
    waiting = threading.Thread(target=lambda: took.set() if taker.acquire() else None)
    waiting.start()
    assert not took.wait(1.5 * LIMIT), "it was taken from a live holder"
    stop.set()
    beating.join()
    assert not took.wait(LIMIT / 2) and took.wait(20)
    waiting.join()
    assert taker.is_held()
    taker.release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "../../x"}', "[" * 9_999])
def test_a_broken_lease_is_taken_when_it_is_not_touched(tmp_path: Path, content: str) -> None:
    """A process can be killed between making the file and writing it."""
    (tmp_path / "lease").write_text(content)
    assert LIMIT <= seconds_to_acquire(tmp_path / "lease") < 10
    assert not list(tmp_path.iterdir())


def test_a_claim_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    forged(tmp_path / "lease")
    (tmp_path / f"lease.{'f' * 16}").mkdir()
    assert seconds_to_acquire(tmp_path / "lease") < 20
    assert not list(tmp_path.iterdir())


COUNT = (
    HEAD
    + """
for _ in range(5):
    with lock.Lease(folder / "lease") as held:
        number = int((folder / "number").read_text())
        time.sleep(0.002)
        (folder / "number").write_text(str(number + 1))
        held.check()
"""
)


def test_of_many_waiting_processes_one_takes_over(tmp_path: Path) -> None:
    """Eight processes find the same holder dead at the same moment; then each counts alone."""
    (tmp_path / "number").write_text("0")
    forged(tmp_path / "lease")
    others = [start(COUNT, tmp_path) for _ in range(8)]
    errors = [other.communicate(timeout=60)[1] for other in others]
    assert errors == [""] * 8
    assert (tmp_path / "number").read_text() == "40"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["number"]


STAGE = (
    HEAD
    + """
def make(work):
    (work / "begun").write_text("by the first")
    Path(sys.argv[2]).touch()
    time.sleep(1)
    (work / "result").write_text("whole")
try:
    Store(folder).stage("experts", 1, {}).run(make)
except StoreError as error:
    sys.exit(f"error: {error}")
"""
)


def test_a_suspended_process_loses_its_stage_and_says_so(tmp_path: Path) -> None:
    """The next process resumes from its files; what it writes after it has woken up is not published."""
    store, sign = tmp_path / "store", tmp_path / "sign"
    first = start(STAGE, store, sign)
    wait_for(sign.exists)
    first.send_signal(signal.SIGSTOP)
    made = Store(store).stage("experts", 1, {})

    def make(work: Path) -> None:
        assert (work / "begun").read_text() == "by the first"
        first.send_signal(signal.SIGCONT)
        _, error = first.communicate(timeout=30)
        assert first.returncode == 1 and error.count("\n") == 1
        assert "suspended for 1 s or longer, and another one has taken over" in error
        (work / "result").write_text("by the second")

    began = time.monotonic()
    made.run(make)
    assert time.monotonic() - began > LIMIT
    assert (made.folder / "result").read_text() == "by the second"
    assert [path.name for path in made.folder.parent.iterdir()] == [made.key]


def test_a_lost_lease_is_not_released(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    first = Lease(path)
    assert first.acquire()
    path.unlink()
    with Lease(path) as second:
        with pytest.raises(StoreError, match="another one has taken over"):
            first.check()
        first.release()
        assert second.is_held()


ONCE = (
    HEAD
    + """
def make(work):
    with Path(sys.argv[2]).open("a") as log:
        log.write("made ")
    time.sleep(0.2)
    (work / "result").write_text("whole")
stage = Store(folder).stage("experts", 1, {})
assert (stage.run(make) / "result").read_text() == "whole"
"""
)


def test_eight_processes_make_a_stage_once(tmp_path: Path) -> None:
    others = [start(ONCE, tmp_path / "store", tmp_path / "log") for _ in range(8)]
    waiting = {"", "stage experts is being made by another process: waiting for it to end\n"}
    assert {other.communicate(timeout=60)[1] for other in others} <= waiting, (
        "on a busy machine one says that it waits"
    )
    assert [other.returncode for other in others] == [0] * 8
    assert (tmp_path / "log").read_text() == "made "
    assert len(list((tmp_path / "store/experts").iterdir())) == 1


KILLED_AFTER_RENAME = """
import os, signal, sys
from pathlib import Path
from elrea.store import stage as store

def make(work):
    (work / "result").write_text("whole")

store.sync = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
store.Store(Path(sys.argv[1])).stage("experts", 1, {}).run(make)
"""


def test_leftovers_of_a_killed_process_are_removed_on_use(tmp_path: Path) -> None:
    other = start(KILLED_AFTER_RENAME, tmp_path)
    other.communicate(timeout=30)
    made = Store(tmp_path).stage("experts", 1, {})
    assert made.done() and len(list(made.folder.parent.iterdir())) > 1
    made.run(never)
    assert [path.name for path in made.folder.parent.iterdir()] == [made.key]


def test_a_long_wait_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    reported: list[float] = []
    holder = Lease(tmp_path / "lease")
    assert holder.acquire()
    began = time.monotonic()
    waiter = Lease(tmp_path / "lease", lambda: reported.append(time.monotonic() - began))
    waiting = threading.Thread(target=waiter.acquire)
    waiting.start()
    time.sleep(0.8)
    holder.release()
    waiting.join()
    waiter.release()
    assert len(reported) == 1 and reported[0] >= 0.2
