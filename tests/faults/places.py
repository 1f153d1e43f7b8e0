"""Stores that cannot be written, are full, or lie where names are odd."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cli.commands import Command
from tests.faults.faults import Setting, differences, finished

SIZES = (4, 60, 140, 152, 160, 168, 176, 184)
"""KB of disks that fill up, on the way of a run that needs a little more than the last."""


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
    for size in SIZES:
        yield full(folder, setting, size)
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


def full(folder: Path, setting: Setting, size: int) -> dict[str, Any]:
    """The disk of the store has no room; then it gets some."""
    disk, home = folder / "disk", folder / f"full{size}"
    _mount(disk, f"size={size}k")
    try:
        stopped = Command(home, *setting.words, f"store={disk / 'store'}").wait()
        facts: dict[str, Any] = {"kind": "full disk", "kilobytes": size, "wrong": []}
        lines = [line for line in stopped.err.splitlines() if not line.startswith("W&B: ")]
        if stopped.code != 1 or len(lines) != 1 or "no space left for" not in lines[0]:
            facts["wrong"].append(f"it ended with {stopped.code}: {stopped.err[-500:]}")
        before = finished(disk / "store")
        facts["finished_stages"] = len(before)
        _mount(disk, "remount,size=20m")
        facts["wrong"] += differences(
            setting.whole, Command(home, *setting.words, f"store={disk / 'store'}").wait()
        )
        after = finished(disk / "store")
        facts["wrong"] += [
            f"{name} was made twice" for name in before if after.get(name) != before[name]
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
