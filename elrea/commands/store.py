"""Looks after a store: what is in it, whether it is whole, and what nobody uses any more.

    python -m elrea.store ls
    python -m elrea.store verify
    python -m elrea.store gc            # what would go
    python -m elrea.store gc --yes      # removes it

A stage is used by every run whose folder says so (summary.json, or status.json of one that is under way or was
stopped): all below outputs/ and multirun/, or what `--runs` names. `gc` leaves these, whatever was made or used in the
last day (`--hours`), and whatever a process is at work on. What no store makes it never touches: a stage is a folder
named by a key, with a manifest.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from elrea.commands.messages import told
from elrea.errors import ConfigError, StoreError
from elrea.store.files import key_of, read_json
from elrea.store.lock import Lease, read_lease
from elrea.store.manifest import MANIFEST, verify

RUNS = (Path("outputs"), Path("multirun"))
"""Where runs leave their folders, seen from where they were started."""
STAGE = re.compile("[a-z0-9][a-z0-9_-]*")
"""Folders of a store."""
OWN = re.compile(
    r"([0-9a-f]{16})(?:|(?:\..+)?\.partial|\.lease(?:\.[0-9a-f]+)?|\.damaged|\.gone|\.tries\.json)"
    r"|\.([0-9a-f]{16})\.tries\.json\.\d+\.tmp"
)
"""Names that a store gives in there: a stage's key, and what stands beside it while it is made or removed."""


@dataclass
class Entry:
    """What stands in the store under one key: a finished stage, or what the making of one has left."""

    folder: Path
    """`<store>/<name>/<key>`, where the finished stage is or would be."""
    paths: list[Path]
    """All that there is, in and beside that folder."""
    used: int
    """By so many runs."""

    @property
    def ours(self) -> bool:
        """Whether a store made it: what only bears a key's name, or is a link, is somebody's and not to be removed."""
        return not self.finished or (
            (self.folder / MANIFEST).is_file() and not self.folder.is_symlink()
        )

    @property
    def finished(self) -> bool:
        return self.folder in self.paths

    @property
    def bytes(self) -> int:
        files = (file for path in self.paths for file in (path, *path.rglob("*")))
        return sum(file.lstat().st_size for file in files if not file.is_dir())

    @property
    def hours(self) -> float:
        """Since it was last made, used or worked on."""
        files = [file for path in self.paths for file in (path, *path.glob("*"))]
        return (time.time() - max(file.lstat().st_mtime for file in files)) / 3600

    def held(self) -> bool:
        """Whether a process is at work on it; one on another machine, if its lease moved in the last hour."""
        found = read_lease(self.folder.with_name(f"{self.folder.name}.lease"))
        if found is None or found.alive is not None:
            return found is not None and bool(found.alive)
        return time.time() - found.touched / 1e9 < 3600

    def remove(self) -> bool:
        """Removes all of it; False where a process is at work on it after all."""
        lease = Lease(self.folder.with_name(f"{self.folder.name}.lease"))
        if not lease.acquire(wait=False):
            return False
        try:
            if self.finished:  # first of all its name: half of it must not look like a stage
                gone = self.folder.with_name(f"{self.folder.name}.gone")
                self.paths[self.paths.index(self.folder)] = self.folder.rename(gone)
            for path in self.paths:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path != lease.path:
                    path.unlink(missing_ok=True)
        finally:
            lease.release()
        return True


def entries(store: Path, uses: dict[str, int]) -> list[Entry]:
    """All that is in a store, by stage and key; other files and folders are passed over.

    Raises:
        StoreError: There is no such folder.
    """
    if not store.is_dir():
        raise StoreError(f"{store}: no such folder; name the store with --store")
    found: dict[Path, Entry] = {}
    for path in sorted(store.glob("*/*")):
        own = OWN.fullmatch(path.name)
        if own is None or not STAGE.fullmatch(path.parent.name):
            continue
        key = own[1] or own[2]
        folder = path.with_name(key)
        found.setdefault(folder, Entry(folder, [], uses.get(key, 0))).paths.append(path)
    return list(found.values())


def used_by(folders: list[Path]) -> tuple[int, dict[str, int]]:
    """How many runs there are below some folders, and key -> how many of them use that stage.

    Raises:
        StoreError: What a run uses cannot be read.
    """
    keys: dict[Path, set[str]] = {}
    for folder in folders:
        for path in [*folder.rglob("summary.json"), *folder.rglob("status.json")]:
            if "wandb" in path.relative_to(folder).parts[:-1]:
                continue
            try:
                stages = read_json(path).get("stages", {})
                keys.setdefault(path.parent, set()).update(
                    str(stage["key"]) for stage in stages.values()
                )
            except (AttributeError, LookupError, TypeError) as error:
                raise StoreError(f"{path}: does not say which stages its run uses") from error
    counts: dict[str, int] = {}
    for key in (key for run in keys.values() for key in run):
        counts[key] = counts.get(key, 0) + 1
    return len(keys), counts


def damage(entry: Entry) -> str | None:
    """What is wrong with a finished stage, in one line; None if nothing is."""
    name, key = entry.folder.parent.name, entry.folder.name
    try:
        verify(entry.folder, name, key)
        manifest = read_json(entry.folder / MANIFEST)
        identity = {part: manifest.get(part) for part in ("name", "version", "inputs")}
        if key_of(identity) != key:
            return f"{entry.folder / MANIFEST}: its inputs are not those of {key}"
        listed = {MANIFEST, *manifest["files"]}
        for path in entry.folder.rglob("*"):
            if not path.is_dir() and path.relative_to(entry.folder).as_posix() not in listed:
                return f"{path}: is not in the manifest"
    except StoreError as error:
        return str(error)
    return None


def ls(found: list[Entry], runs: int) -> None:
    print(f"{'stage':<10} {'key':<16} {'MB':>9} {'made':<25} {'seconds':>8}  used by")
    for entry in found:
        made, seconds = "", ""
        if entry.finished:
            with suppress(StoreError, AttributeError, TypeError, ValueError):
                manifest = read_json(entry.folder / MANIFEST)
                made, seconds = str(manifest.get("made")), f"{float(manifest.get('seconds')):.1f}"
            use = f"{entry.used} of {runs} runs"
        else:
            use = "being made" if entry.held() else "unfinished"
        stage, key = entry.folder.parent.name, entry.folder.name
        print(f"{stage:<10} {key:<16} {entry.bytes / 1e6:>9.2f} {made:<25} {seconds:>8}  {use}")
    print(f"{len(found)} in all, {sum(entry.bytes for entry in found) / 1e6:,.2f} MB")


def check(found: list[Entry]) -> None:
    """Says what is damaged, and ends with 1 where something is."""
    finished = [entry for entry in found if entry.finished]
    lines = [line for entry in finished if (line := damage(entry))]
    print(*lines, f"{len(finished)} stages, {len(lines)} damaged", sep="\n")
    sys.exit(1 if lines else 0)


def gc(found: list[Entry], runs: int, hours: float, yes: bool) -> None:
    def unused() -> Iterator[Entry]:
        for entry in found:
            if entry.ours and not entry.used and entry.hours >= hours and not entry.held():
                yield entry

    size, count = 0, 0
    for entry in unused():
        weighs = entry.bytes
        if yes and not entry.remove():
            continue
        count, size = count + 1, size + weighs
        print(f"{'removed' if yes else 'unused'}: {entry.folder} ({weighs / 1e6:.2f} MB)")
    kept = f"of {len(found)}, for {runs} runs that are kept"
    print(f"{count} {kept}, {size / 1e6:,.2f} MB" + ("" if yes else "; --yes removes them"))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m elrea.store", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("what", choices=("ls", "verify", "gc"))
    parser.add_argument("--store", default=os.environ.get("ELREA_STORE", ".elrea"))
    parser.add_argument(
        "--runs", type=Path, nargs="+", metavar="FOLDER", help="run folders, or folders of such"
    )
    parser.add_argument(
        "--hours", type=float, default=24.0, help="gc: what was used since stays (24)"
    )
    parser.add_argument("--yes", action="store_true", help="gc: remove it")
    given = parser.parse_args()
    if not given.store.strip():  # to Path it would be the working folder
        raise ConfigError(
            "--store '': wants the folder in which stages are kept, here or as ELREA_STORE"
        )
    if not 0 <= given.hours < math.inf:
        raise ConfigError(f"--hours {given.hours:g}: wants a number of hours, 0 or more")
    store = Path(given.store)
    folders = given.runs or [folder for folder in RUNS if folder.is_dir()]
    for folder in folders:
        if not folder.is_dir():
            raise StoreError(f"{folder}: no such folder; name runs' folders with --runs")
    if given.what == "verify":
        return check(entries(store, {}))
    runs, uses = used_by(folders)
    found = entries(store, uses)
    if given.what == "ls":
        return ls(found, runs)
    if not runs:
        raise StoreError(
            "gc: there are no runs below outputs/ and multirun/ here; name theirs with --runs"
        )
    gc(found, runs, given.hours, given.yes)


if __name__ == "__main__":
    with told():
        main()
