"""Stores that cannot be written, are full, or lie where names are odd."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cli.commands import Command
from tests.faults.faults import Setting, differences, finished

PAGE = 4096
"""What a tmpfs counts in."""


def all_of_them(folder: Path, setting: Setting) -> Iterator[dict[str, Any]]:
    yield odd_path(folder, setting)
    if not _mount(folder / "try", "size=1m"):
        yield {
            "kind": "full disk, read-only store",
            "skipped": "nothing may be mounted",
            "wrong": [],
        }
        return
    _unmount(folder / "try")
    names = list(stages(setting.whole.folder))
    for number, stage in enumerate(names):
        yield full(folder, setting, stage, names[:number])
    yield read_only(folder, setting)


def odd_path(folder: Path, setting: Setting) -> dict[str, Any]:
    """A store and a run's folder with spaces, umlauts, Chinese and an emoji in their paths."""
    home = folder / "ein Ordner, größer" / "数据 🙂"
    store = home / "the store's place"
    done = Command(home, *setting.words, f'store="{store}"').wait()
    wrong = differences(setting.whole, done)
    if not finished(store):
        wrong.append("nothing is in the store")
    return {"kind": "odd path", "wrong": wrong}


def stages(whole: Path) -> dict[str, str]:
    """The stages of the unbroken run in the order of the work, and where they are in the store."""
    found = json.loads((whole / "out" / "summary.json").read_text())["stages"]
    made = {path.parent.name: path for path in (whole / "store").glob("*/*/manifest.json")}
    order = sorted(found, key=lambda name: made[found[name]["key"]].stat().st_mtime_ns)
    store = whole / "store"
    return {name: made[found[name]["key"]].parent.relative_to(store).as_posix() for name in order}


def full(folder: Path, setting: Setting, stage: str, before: list[str]) -> dict[str, Any]:
    """The disk has half the room that a stage needs; then it gets some.

    Args:
        folder: To work in.
        setting: The run.
        stage: By its name in the plan.
        before: The stages before it, which are made with room.
    """
    disk, home = folder / "disk", folder / f"full-{stage}"
    place = stages(setting.whole.folder)[stage]
    files = [path for path in (setting.whole.folder / "store" / place).rglob("*") if path.is_file()]
    own = sum(-(-path.stat().st_size // PAGE) * PAGE for path in files)
    _mount(disk, "size=20m")
    try:
        words = [*setting.words, f"store={disk / 'store'}"]
        facts: dict[str, Any] = {"kind": "full disk", "in": stage, "wrong": []}
        for name in before:
            if Command(home, *words, f"until={name}").wait().code:
                facts["wrong"].append(f"until={name} did not end well")
        kept = finished(disk / "store")
        used = shutil.disk_usage(disk).used
        _mount(disk, f"remount,size={(used + own // 2) // 1024}k")
        stopped = Command(home, *words).wait()
        lines = [line for line in stopped.err.splitlines() if not line.startswith("W&B: ")]
        if stopped.code != 1 or len(lines) != 1 or "no space left for" not in lines[0]:
            facts["wrong"].append(f"it ended with {stopped.code}: {stopped.err[-500:]}")
        facts["finished_stages"] = len(kept)
        if finished(disk / "store") != kept or not list(disk.glob(f"store/{place}*")):
            facts["wrong"].append(f"the disk was not full in {stage}")
        _mount(disk, "remount,size=20m")
        facts["wrong"] += differences(setting.whole, Command(home, *words).wait())
        after = finished(disk / "store")
        facts["wrong"] += [
            f"{name} was made twice" for name in kept if after.get(name) != kept[name]
        ]
    finally:
        _unmount(disk)
    return facts


def read_only(folder: Path, setting: Setting) -> dict[str, Any]:
    """What is finished can be used; what is not is one line."""
    disk, facts = folder / "disk", {"kind": "read-only store", "wrong": []}
    _mount(disk, "size=20m")
    try:
        shutil.copytree(setting.whole.folder / "store", disk / "store")
        _mount(disk, "remount,ro")
        words = [*setting.words, f"store={disk / 'store'}"]
        wrong = differences(setting.whole, Command(folder / "reused", *words).wait())
        other = Command(folder / "other", *words, "seed=1").wait()
        if (
            other.code != 1
            or f"cannot write to {disk / 'store'}" not in other.err
            or other.err.count("\n") != 1
        ):
            wrong.append(f"a stage to make: {other.code}, {other.err[-500:]}")
        facts["wrong"] = wrong
    finally:
        _unmount(disk)
    return facts


def _mount(folder: Path, options: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)
