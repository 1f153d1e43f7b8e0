"""Looks after a store: lists its stages, verifies them, and removes those that no run uses.

    elrea store ls
    elrea store verify
    elrea store gc            # shows what would be removed
    elrea store gc --yes      # removes it

A run records in the store (runs/) which stages it uses, and its folder lists them (summary.json, or
status.json while it runs or after it was stopped). The runs are those recorded whose folder is
still there, and all folders below outputs/ and multirun/, or those given with --runs. `gc` keeps
the stages of these runs, those that were made or used in the last day (--hours), and those that a
process works on. It removes only what a store makes: folders named by a key and with a manifest,
the leftovers of unfinished stages, and the records of runs whose folder is gone.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from elrea.commands.exit import announce, one_line_errors
from elrea.commands.parser import Parser
from elrea.errors import ConfigError, StoreError
from elrea.reporting.progress import WIDTH
from elrea.reporting.sweeps import STATUS, SUMMARY
from elrea.store.files import key_of, read_json
from elrea.store.lock import Lease, read_lease
from elrea.store.manifest import MANIFEST, verify
from elrea.store.uses import RECORDS, Use, recorded_uses

RUNS = (Path("outputs"), Path("multirun"))
"""Default folders of runs, relative to the working folder."""
STAGE = re.compile("[a-z0-9][a-z0-9_-]*")
"""Names of the folders in a store, one per stage name."""
STORED = re.compile(
    r"([0-9a-f]{16})(?:|(?:\..+)?\.partial|\.lease(?:\.[0-9a-f]+)?|\.damaged|\.gone|\.tries\.json)"
    r"|\.([0-9a-f]{16})\.tries\.json\.\d+\.tmp"
)
"""Names in those folders: the key of a stage, and with suffixes what exists while it is made or removed."""


@dataclass
class Entry:
    """Everything in the store under one key: a finished stage, or the leftovers of an unfinished one."""

    folder: Path
    """`<store>/<name>/<key>`: the finished stage, which may not exist."""
    paths: list[Path]
    """Files and folders that exist under that key, `folder` and its siblings with suffixes."""
    used: int
    """Number of runs that use it."""
    names: Sequence[str] = ()
    """What the plans of these runs call it, as "expert-0"; the folder is named by the kind, "adapter"."""

    @property
    def removable(self) -> bool:
        """Whether a store made it: not a link, and not a folder that has a key's name but no manifest."""
        return not self.finished or (
            (self.folder / MANIFEST).is_file() and not self.folder.is_symlink()
        )

    def shown_name(self, inputs: Mapping[str, Any]) -> str:
        """Its name in the plans; of a stage that no run uses, as far as its inputs tell it.

        Args:
            inputs: From its manifest.
        """
        kind = self.folder.parent.name
        if self.names:
            return ", ".join(self.names)
        given = inputs.get("name")
        return given if isinstance(given, str) else kind

    @property
    def finished(self) -> bool:
        """Whether the stage was finished."""
        return self.folder in self.paths

    @property
    def bytes(self) -> int:
        """Size of its files."""
        files = (file for path in self.paths for file in (path, *path.rglob("*")))
        return sum(file.lstat().st_size for file in files if not file.is_dir())

    @property
    def hours(self) -> float:
        """Hours since it was last made or used."""
        files = [file for path in self.paths for file in (path, *path.glob("*"))]
        return (time.time() - max(file.lstat().st_mtime for file in files)) / 3600

    def locked(self) -> bool:
        """Whether a process works on it. On another machine: whether its lock was touched in the last hour."""
        lease = read_lease(self.folder.with_name(f"{self.folder.name}.lease"))
        if lease is None or lease.alive is not None:
            return lease is not None and bool(lease.alive)
        return time.time() - lease.touched / 1e9 < 3600

    def remove(self) -> bool:
        """Removes all of it; returns False if a process has locked it since."""
        lease = Lease(self.folder.with_name(f"{self.folder.name}.lease"))
        if not lease.acquire(wait=False):
            return False
        try:
            if self.finished:  # renamed first: a partly removed folder must not look like a stage
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


def entries(store: Path, uses: Mapping[str, Sequence[str]]) -> list[Entry]:
    """All entries of a store, ordered by stage name and key; files and folders of other names are ignored.

    Args:
        store: Folder of the store.
        uses: By a stage's key, what each run that uses it calls it.

    Raises:
        StoreError: There is no such folder.
    """
    if not store.is_dir():
        raise StoreError(f"{store}: no such folder; name the store with --store")
    by_folder: dict[Path, Entry] = {}
    for path in sorted(store.glob("*/*")):
        match = STORED.fullmatch(path.name)
        if match is None or not STAGE.fullmatch(path.parent.name):
            continue
        key = match[1] or match[2]
        folder = path.with_name(key)
        names = uses.get(key, ())
        entry = Entry(folder, [], len(names), sorted(set(names)))
        by_folder.setdefault(folder, entry).paths.append(path)
    return list(by_folder.values())


@dataclass(frozen=True)
class Runs:
    """The runs whose stages are kept.

    Attributes:
        count: How many there are.
        names: By a stage's key, what each run that uses it calls it.
        folders: Below which runs were looked for.
        recorded: What the store's own records say, of runs that are gone too.
    """

    count: int
    names: Mapping[str, Sequence[str]]
    folders: Sequence[Path]
    recorded: Sequence[Use]

    @classmethod
    def of(cls, store: Path, folders: Sequence[Path]) -> Runs:
        """The runs that the store has records of, and those below these folders.

        Raises:
            StoreError: A run's list of stages cannot be read.
        """
        recorded = recorded_uses(store)
        keys: dict[Path, dict[str, str]] = {}
        for use in recorded:
            if not use.gone:
                found = {key: name for name, key in use.stages.items()}
                keys.setdefault(use.run, {}).update(found)
        for run, found in listed_below(folders):
            keys.setdefault(run.resolve(), {}).update(found)
        names: dict[str, list[str]] = {}
        for found in keys.values():
            for key, name in found.items():
                names.setdefault(key, []).append(name)
        return cls(len(keys), names, folders, recorded)

    def lines(self, store: Path) -> Iterator[str]:
        """Says where runs were looked for, and which may be missing."""
        kept = [use for use in self.recorded if not use.gone]
        below = f"all below {', '.join(map(str, self.folders))}"
        below = below if self.folders else "outputs and multirun are not here"
        yield f"runs: {len(kept)} recorded in {store / RECORDS}; {below}"
        if hosts := sorted({use.host for use in kept if not use.here}):
            yield (
                f"some of them ran on {', '.join(hosts)}, and their folders are not here: run gc there, or delete "
                f"the files in {store / RECORDS} that name folders which are gone"
            )
        if not self.recorded:
            yield (
                "the store is of an older version, which recorded no runs: name all folders of runs that use it "
                "with --runs"
            )


def listed_below(folders: Sequence[Path]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Each list of stages in a run's folder below these: the run's folder, and name by key.

    Raises:
        StoreError: A list cannot be read.
    """
    for folder in folders:
        for path in [*folder.rglob(SUMMARY), *folder.rglob(STATUS)]:
            if "wandb" in path.relative_to(folder).parts[:-1]:
                continue
            try:
                stages = read_json(path).get("stages", {})
                yield path.parent, {str(stage["key"]): name for name, stage in stages.items()}
            except (AttributeError, LookupError, TypeError) as error:
                raise StoreError(f"{path}: does not list the stages that its run uses") from error


def damage(entry: Entry) -> str | None:
    """The damage of a finished stage, in one line; None if it is intact."""
    name, key = entry.folder.parent.name, entry.folder.name
    try:
        verify(entry.folder, name, key)
        manifest = read_json(entry.folder / MANIFEST)
        identity = {part: manifest.get(part) for part in ("name", "version", "inputs")}
        if key_of(identity) != key:
            return f"{entry.folder / MANIFEST}: its inputs do not give the key {key}"
        listed = {MANIFEST, *manifest["files"]}
        for path in entry.folder.rglob("*"):
            if not path.is_dir() and path.relative_to(entry.folder).as_posix() not in listed:
                return f"{path}: is not in the manifest"
    except StoreError as error:
        return str(error)
    return None


def ls(stored: list[Entry], runs: int) -> None:
    """Prints a table of the entries: the names that plans show, the folders, and how many of the runs use each."""
    rows = [("stage", "folder", "MB", "made (UTC)", "seconds", "used by")]
    for entry in stored:
        made, seconds, inputs = "", "", {}
        if entry.finished:
            with suppress(StoreError, AttributeError, TypeError, ValueError):
                manifest = read_json(entry.folder / MANIFEST)
                made, seconds = str(manifest.get("made")), f"{float(manifest.get('seconds')):.1f}"
                inputs = dict(manifest.get("inputs"))
            use = f"{entry.used} of {runs} runs"
        else:
            use = "being made" if entry.locked() else "unfinished"
        folder = f"{entry.folder.parent.name}/{entry.folder.name}"
        size = f"{entry.bytes / 1e6:.2f}"
        rows.append((entry.shown_name(inputs), folder, size, made[:16], seconds, use))
    names, folders = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, folder, size, made, seconds, use in rows:
        line = f"{name:<{names}}  {folder:<{folders}} {size:>8}  {made:<16} {seconds:>8}  {use}"
        print(line.rstrip())
    print(f"{len(stored)} in all, {sum(entry.bytes for entry in stored) / 1e6:,.2f} MB")


def verify_all(stored: list[Entry]) -> None:
    """Prints the damaged stages; exits with 1 if there are any, else with 0."""
    finished = [entry for entry in stored if entry.finished]
    announce(f"verifying {len(finished)} stages ...")
    lines = [line for entry in finished if (line := damage(entry))]
    print(*lines, f"{len(finished)} stages, {len(lines)} damaged", sep="\n")
    sys.exit(1 if lines else 0)


def gc(stored: list[Entry], runs: Runs, store: Path, hours: float, yes: bool) -> None:
    """Prints the unused entries and where runs were looked for, and removes the entries if `yes`.

    Args:
        stored: Entries of the store.
        runs: The runs whose stages are kept.
        store: Folder of the store.
        hours: Entries that were made or used within so many hours are kept.
        yes: Whether to remove them, and the records of runs that are gone.
    """

    def unused() -> Iterator[Entry]:
        for entry in stored:
            if entry.removable and not entry.used and entry.hours >= hours and not entry.locked():
                yield entry

    total, count = 0, 0
    for entry in unused():
        size = entry.bytes
        if yes and not entry.remove():
            continue
        count, total = count + 1, total + size
        print(f"{'removed' if yes else 'unused'}: {entry.folder} ({size / 1e6:.2f} MB)")
    if yes:
        for use in runs.recorded:
            if use.gone:
                use.record.unlink(missing_ok=True)
    for line in runs.lines(store):
        print(fill(line, WIDTH, subsequent_indent="  ", break_long_words=False))
    kept = f"of {len(stored)} (stages of {runs.count} runs are kept)"
    print(
        f"{count} {kept}, {total / 1e6:,.2f} MB"
        + ("; --yes removes them" if count and not yes else "")
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    given = _parser().parse_args(argv)
    if not given.store.strip():  # as a Path it would be the working folder
        raise ConfigError("--store '': give the folder of the store, here or as ELREA_STORE")
    if not 0 <= given.hours < math.inf:
        raise ConfigError(f"--hours {given.hours:g}: must be a number of hours, 0 or more")
    store = Path(given.store)
    folders = given.runs or [folder for folder in RUNS if folder.is_dir()]
    for folder in folders:
        if not folder.is_dir():
            raise StoreError(f"{folder}: no such folder; give the folders of runs with --runs")
    if given.action == "verify":
        return verify_all(entries(store, {}))
    runs = Runs.of(store, folders)
    stored = entries(store, runs.names)
    if given.action == "ls":
        return ls(stored, runs.count)
    if not runs.count:
        raise StoreError(
            "gc: there are no runs below outputs/ and multirun/ here, and the store has no record of one; give their "
            "folders with --runs"
        )
    gc(stored, runs, store, given.hours, given.yes)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="elrea store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("ls", "verify", "gc"))
    parser.add_argument(
        "--store", default=os.environ.get("ELREA_STORE", ".elrea"),
        help="folder of the store (default: ELREA_STORE, or .elrea)",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=Path, nargs="+", metavar="FOLDER",
        help="folders of runs, at any depth, instead of outputs and multirun",
    )  # fmt: skip
    parser.add_argument(
        "--hours", type=float, default=24.0,
        help="gc: keep what was made or used in so many hours (default: 24)",
    )  # fmt: skip
    parser.add_argument(
        "--yes", action="store_true", help="gc: remove the unused stages (default: only show them)"
    )
    return parser


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
