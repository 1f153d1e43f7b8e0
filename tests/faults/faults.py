"""What a run has to bear: killed at a moment, stopped by a signal, and what has to hold when it is run again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elrea.store.uses import RECORDS
from tests.cli.commands import Command, Ended
from tests.faults.trap import Moment, Trap, fired, moments
from tests.reporting.wandb_reader import runs

OFTEN = "training.checkpoint_minutes=1e-9"
"""A checkpoint at every step, so that there is more to break."""


@dataclass
class Setting:
    """A run, and what it comes to when nothing breaks it."""

    words: Sequence[str]
    whole: Ended
    moments: list[Moment]
    seconds: float


def unbroken(folder: Path, words: Sequence[str]) -> Setting:
    """Runs to the end, and notes every moment at which it could have been killed."""
    log = folder.with_name(f"{folder.name}.log")
    began = time.monotonic()
    whole = Command(folder, *words, "store=store", OFTEN, before=Trap(log)).wait()
    assert (whole.code, whole.err) == (0, ""), whole.err
    return Setting(words, whole, moments(log), time.monotonic() - began)


def draw(found: Sequence[Moment], count: int, seed: int) -> list[Moment]:
    """So many moments: one of every kind in every stage first, then again from each."""
    draws = random.Random(seed)
    groups: dict[tuple[str, str], list[Moment]] = {}
    for moment in found:
        groups.setdefault((moment.kind, moment.stage), []).append(moment)
    left = [draws.sample(group, len(group)) for group in groups.values()]
    chosen: list[Moment] = []
    while len(chosen) < count and any(left):
        turn = [group.pop() for group in draws.sample(left, len(left)) if group]
        chosen += turn[: count - len(chosen)]
    return chosen


def finished(store: Path) -> dict[str, tuple[int, str]]:
    """Every stage that is finished, with what would be another if it were made again."""
    return {
        path.parent.relative_to(store).as_posix(): (path.stat().st_ino, path.read_text())
        for path in store.glob("*/*/manifest.json")
        if "." not in path.parent.name
    }


def strays(folder: Path) -> list[str]:
    """What nobody needs: all in the store that no manifest lists and no run's record is, and files written aside."""
    store = folder / "store"
    known = {path for path in (store / RECORDS).glob("*.json") if not path.name.startswith(".")}
    for path in store.glob("*/*/manifest.json"):
        listed = json.loads(path.read_text())["files"]
        known |= {path, *(path.parent / name for name in listed)}
    found = [path for path in store.rglob("*") if path.is_file() and path not in known]
    found += [
        path
        for path in store.glob("*/*")
        if path not in known and not (path / "manifest.json").exists()
    ]
    out = [path for path in (folder / "out").rglob("*") if "wandb" not in path.parts]
    found += [path for path in out if path.suffix in (".tmp", ".partial", ".lease", ".lock")]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def broken(
    folder: Path, setting: Setting, at: Moment, send: int = signal.SIGKILL
) -> dict[str, Any]:
    """Breaks a run off at a moment, runs it again, and says what came of it; `wrong` is to be empty."""
    log = folder.with_name(f"{folder.name}.log")
    words = [*setting.words, "store=store", OFTEN]
    stopped = Command(folder, *words, before=Trap(log, at, send)).wait()
    ended, sprung = time.monotonic(), fired(log)
    facts: dict[str, Any] = {"kind": at.kind, "number": at.number, "stage": at.stage}
    facts |= {"signal": signal.Signals(send).name, "wrong": []}
    if sprung is None:
        facts["wrong"].append("the moment never came")
    facts["stop_seconds"] = round(ended - (sprung or ended), 2)
    if send != signal.SIGKILL:
        facts["wandb_exit_codes"] = [run.exit_code for run in runs(stopped.folder / "out")]
    facts["wrong"] += _stop(stopped, send, facts)
    before = finished(folder / "store")
    again = Command(folder, *words).wait()
    facts["finished_stages"] = len(before)
    facts["wrong"] += differences(setting.whole, again)
    after = finished(folder / "store")
    facts["wrong"] += [
        f"{name} was made twice" for name in before if after.get(name) != before[name]
    ]
    facts["wrong"] += [f"{name} stays" for name in strays(folder)]
    if not facts["wrong"]:
        shutil.rmtree(folder)
    return facts


def _stop(stopped: Ended, send: int, facts: dict[str, Any]) -> list[str]:
    """What was wrong about how it ended."""
    codes = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
    wrong = []
    if stopped.code != codes[signal.Signals(send)]:
        wrong.append(f"it ended with {stopped.code}: {stopped.err[-500:]}")
    if send != signal.SIGKILL:
        if facts["stop_seconds"] > 5:
            wrong.append(f"it took {facts['stop_seconds']} s to stop")
        if stopped.err.count("\n") != 1 or not stopped.err.startswith("error: "):
            wrong.append(f"it said {stopped.err[-500:]!r}")
        if facts["wandb_exit_codes"] != [1]:
            wrong.append(f"its W&B run is marked {facts['wandb_exit_codes']}")
    return wrong


def differences(whole: Ended, again: Ended) -> list[str]:
    """Where a second try's results are not the unbroken run's."""
    if again.code or again.err:
        return [f"the second try ended with {again.code}: {again.err[-500:]}"]
    wrong = []
    if json.dumps(again.summary) != json.dumps(whole.summary):
        wrong.append("summary.json differs")
    for name in ("predictions.jsonl", "ensemble/ensemble.json"):
        if (again.folder / "out" / name).read_bytes() != (whole.folder / "out" / name).read_bytes():
            wrong.append(f"{name} differs")
    state = json.loads((again.folder / "out" / "status.json").read_text())["state"]
    return wrong if state == "done" else [*wrong, f"status.json says {state}"]
