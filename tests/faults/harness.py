"""Breaks a small run in every way that reliability.md promises to bear, and says what came of it.

    make test-faults                                  # ten to twenty minutes
    make test-faults ARGS='--kills 5 --seed 7'

SIGKILL at moments drawn by a seed over all stages and all kinds of moments (in a training step, half a safetensors
file, a write, a rename, a removal, rows of features, the end of the W&B run), SIGTERM and Ctrl-C likewise; a disk that
fills up at several places; a store that may only be read; a path with spaces and other alphabets; a job that Slurm's
launcher pre-empts (submitit's local executor stands in); eight sweeps at once on one store. Each is run again, and
compared with a run that nothing broke. Goes to faults.json beside this file. `--part` does some of it, and keeps the
rest of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tests.conftest  # noqa: F401  # no network, one thread
from tests.cli import commands
from tests.cli.commands import EXAM, TINY
from tests.faults import places, shared
from tests.faults.faults import Setting, broken, draw, unbroken
from tests.small_models import small_llama

RESULTS = Path(__file__).with_name("faults.json")
PARTS = ("kills", "stops", "places", "preempted", "shared")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make test-faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=30, help="moments of SIGKILL")
    parser.add_argument("--stops", type=int, default=6, help="moments of SIGTERM or Ctrl-C")
    parser.add_argument("--first", type=int, default=0, help="leave out so many of the moments")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; may be repeated")
    given = parser.parse_args()
    parts = given.part or PARTS
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="faults") as name:
        home = Path(name)
        model = small_llama(home / "model")
        # However slow the machine is just now, it is no fault of the run's.
        commands.LIMIT, patience = 3600, "tracking.timeout=1800"
        words = ["+experiment=elrea_mmlu", *TINY, f"backbone.name={model}", *EXAM, patience]
        setting = unbroken(home / "whole", words)
        print(f"unbroken: {setting.seconds:.1f} s, {len(setting.moments)} moments", flush=True)
        for part in parts:
            for row in globals()[f"_{part}"](home, setting, given):
                index = given.first + sum(other["part"] == part for other in rows)
                rows.append({"part": part, "index": index, **row})
                keep(rows, parts, given.first, round(setting.seconds, 1), len(setting.moments))
    wrong = [row for row in rows if row["wrong"]]
    counts = Counter(row["part"] for row in rows)
    print(f"{len(rows)} faults ({dict(counts)}), {len(wrong)} borne badly")
    for row in wrong:
        print(json.dumps(row), file=sys.stderr)
    sys.exit(1 if wrong else 0)


def keep(rows: list[dict[str, Any]], parts: Any, first: int, seconds: float, moments: int) -> None:
    """Writes the results, those of other parts as they were."""
    old = json.loads(RESULTS.read_text())["faults"] if RESULTS.exists() else []
    kept = [row for row in old if row["part"] not in parts or row.get("index", -1) < first]
    found = sorted([*kept, *rows], key=lambda row: PARTS.index(row["part"]))
    facts = {"unbroken_seconds": seconds, "moments": moments, "faults": found}
    RESULTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def said(row: dict[str, Any]) -> dict[str, Any]:
    line = " ".join(f"{key}={value}" for key, value in row.items() if key != "wrong")
    print(f"{'BAD ' if row['wrong'] else 'ok  '} {line}", *row["wrong"], sep="\n     ", flush=True)
    return row


def _kills(home: Path, setting: Setting, given: Any) -> Iterator[dict[str, Any]]:
    drawn = draw(setting.moments, given.kills, given.seed)[given.first :]
    for i, at in enumerate(drawn):
        yield said(broken(home / f"kill{i}", setting, at))


def _stops(home: Path, setting: Setting, given: Any) -> Iterator[dict[str, Any]]:
    drawn = draw(setting.moments, given.stops, given.seed + 1)
    signals = (signal.SIGTERM, signal.SIGINT)
    for i, at in enumerate(drawn):
        yield said(broken(home / f"stop{i}", setting, at, signals[i % 2]))


def _places(home: Path, setting: Setting, given: Any) -> Iterator[dict[str, Any]]:
    yield from map(said, places.all_of_them(home / "places", setting))


def _preempted(home: Path, setting: Setting, given: Any) -> Iterator[dict[str, Any]]:
    yield said(shared.preempted(home / "preempted", setting))


def _shared(home: Path, setting: Setting, given: Any) -> Iterator[dict[str, Any]]:
    yield said(shared.at_once(home / "shared", setting, 8))


if __name__ == "__main__":
    began = time.monotonic()
    os.environ["WANDB_SILENT"] = "true"
    try:
        main()
    finally:
        print(f"{time.monotonic() - began:.0f} s")
