"""Measures what a sweep costs, against the sum of its stages and against running each of its jobs alone.

    make bench-sweep
    python -m experiments.benchmarks.sweep --train 50 --alone 2

The sweep is cluster counts x strategies x seeds on the built-in exam, from an empty store, one job after the other.
`over_stages`: seconds of the sweep from start to end over the sum of its distinct stages' seconds, from their manifests
(files and checksums are in both). `separate_over_sweep`: seconds of its jobs alone, each in a process and a store of
its own, over the sweep's; `--alone` jobs, spread over the list, are measured, and their mean counts for the others.
`rerun_seconds_per_job`: the same command again, Python's start included. A job alone must give exactly the numbers that
it gives in the sweep, or nothing is written. Writes sweep.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from elrea.store.files import write_json
from experiments.benchmarks.measuring import ROOT, machine

HERE = Path(__file__).parent
RUN = ROOT / "run.py"
SWEPT = {
    "clustering.k": ["2", "4", "8"],
    "ensemble": ["elrea", "uniform", "random_cluster", "elrea_top1"],
    "seed": ["0", "1", "2"],
}


def timed(folder: Path, words: list[str]) -> float:
    """Seconds of `run.py <words>` in a folder."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(RUN), *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return time.perf_counter() - start


def results(summary: Path) -> dict[str, Any]:
    """Figures that must be the same in the sweep and alone."""
    found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))["strategies"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=200, help="training questions per board")
    parser.add_argument("--alone", type=int, default=4, help="jobs to run alone as well")
    parser.add_argument("--out", type=Path, default=HERE / "sweep.json")
    given = parser.parse_args()
    common = ["+experiment=elrea_mmlu", f"data.train_per_board={given.train}", "trainer.threads=1"]
    jobs = list(product(*SWEPT.values()))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        line = ["-m", *common, *(f"{key}={','.join(values)}" for key, values in SWEPT.items())]
        whole = timed(root, line)
        stages = [
            json.loads(path.read_text(encoding="utf-8"))["seconds"]
            for path in root.glob(".elrea/*/*/manifest.json")
        ]
        again = timed(root, line)
        alone = []
        for number in range(0, len(jobs), -(-len(jobs) // given.alone)):
            folder = root / f"alone-{number}"
            folder.mkdir()
            words = [f"{key}={value}" for key, value in zip(SWEPT, jobs[number], strict=True)]
            alone.append(timed(folder, [*common, *words, "hydra.run.dir=out"]))
            (mine,) = root.glob(f"multirun/*/*/{number}/summary.json")
            if results(mine) != results(folder / "out" / "summary.json"):
                raise SystemExit(f"job {number} gives different numbers alone; nothing is written")
            print(f"job {number} alone: {alone[-1]:.0f} s", file=sys.stderr, flush=True)
    found = {
        "jobs": len(jobs),
        "stages": len(stages),
        "sweep_seconds": round(whole, 1),
        "stages_seconds": round(sum(stages), 1),
        "alone_seconds": [round(seconds, 1) for seconds in alone],
        "over_stages": round(whole / sum(stages), 3),
        "separate_over_sweep": round(len(jobs) * sum(alone) / len(alone) / whole, 2),
        "rerun_seconds_per_job": round(again / len(jobs), 2),
        "machine": machine(),
        "command": f"python -m experiments.benchmarks.sweep --train {given.train} --alone {given.alone}",
    }
    write_json(given.out, found)
    for key in ("sweep_seconds", "stages_seconds", "over_stages", "separate_over_sweep"):
        print(f"{key:24}{found[key]:>10}")
    print(f"{'rerun_seconds_per_job':24}{found['rerun_seconds_per_job']:>10}")


if __name__ == "__main__":
    main()
