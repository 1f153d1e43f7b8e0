"""Many at one store, and a job that its scheduler sends back into the queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from tests.cli.commands import LIMIT, QUIET, ROOT, Command
from tests.faults.faults import Setting, finished, strays


def results(summary: Path) -> dict[str, Any]:
    """What must be the same, however a job was run."""
    found = json.loads(summary.read_text())
    keys = {name: stage["key"] for name, stage in found["stages"].items()}
    return {"keys": keys, "strategies": found["strategies"]}


def at_once(folder: Path, setting: Setting, count: int) -> dict[str, Any]:
    """So many processes start the same sweep on one store: each stage is made once, and all come to the same."""
    words = ["-m", *setting.words, f"store={folder / 'store'}", "clustering.k=2,3", QUIET]
    began = time.monotonic()
    sweeps = [Command(folder / f"{i}", *words) for i in range(count)]
    ended = [sweep.wait() for sweep in sweeps]
    wrong = [
        f"{e.folder.name} ended with {e.code}: {e.err[-500:]}" for e in ended if e.code or e.err
    ]
    made: list[str] = []
    for path in sorted(folder.glob("*/multirun/*/*/*/summary.json")):
        stages = json.loads(path.read_text())["stages"].values()
        made += [stage["key"] for stage in stages if not stage["reused"]]
    wrong += [f"{key} was made {made.count(key)} times" for key in set(made) if made.count(key) > 1]
    kept = {name.split("/")[1] for name in finished(folder / "store")}
    if set(made) != kept:
        wrong.append(f"made {sorted(made)}, in the store {sorted(kept)}")
    for job in ("0", "1"):
        found = [results(path) for path in folder.glob(f"*/multirun/*/*/{job}/summary.json")]
        if len(found) != count or any(one != found[0] for one in found):
            wrong.append(f"job {job}: {len(found)} results, not {count} equal ones")
    one = results(next(folder.glob("0/multirun/*/*/0/summary.json")))
    if one != results(setting.whole.folder / "out" / "summary.json"):
        wrong.append("the results are not those of a run alone")
    wrong += [f"{name} stays" for name in strays(folder)]
    seconds = round(time.monotonic() - began, 1)
    return {"kind": "at once", "processes": count, "stages": len(kept), "seconds": seconds, "wrong": wrong}  # fmt: skip


def preempted(folder: Path, setting: Setting) -> dict[str, Any]:
    """The scheduler's signal in the middle of training: submitit's local executor starts the job again."""
    folder.mkdir(parents=True)
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60"]
    often = "training.checkpoint_minutes=1e-9"
    words = ["-m", *setting.words, "store=store", "seed=0", often, *launcher]
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        sweep = subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *words], cwd=folder, stdout=out, stderr=err
        )
        until = time.monotonic() + LIMIT
        while not any(folder.glob("store/base/*.partial/checkpoint/step*/state.json")):
            if sweep.poll() is not None or time.monotonic() > until:
                sweep.kill()
                return {"kind": "pre-empted", "wrong": [(folder / "stderr").read_text()[-1000:]]}
            time.sleep(0.001)
        (job,) = (
            child
            for child in psutil.Process(sweep.pid).children(recursive=True)
            if "submitit.core._submit" in child.cmdline()
        )
        os.kill(job.pid, signal.SIGUSR2)
        sweep.wait(LIMIT)
    wrong = []
    logs = "".join(path.read_text() for path in folder.glob("multirun/*/*/.submitit/*/*log.*"))
    found = list(folder.glob("multirun/*/*/0/summary.json"))
    if sweep.returncode:
        wrong.append(f"it ended with {sweep.returncode}: {(folder / 'stderr').read_text()[-500:]}")
    if "Requeued job" not in logs:
        wrong.append("the job was not sent back into the queue")
    if not found or results(found[0]) != results(setting.whole.folder / "out" / "summary.json"):
        wrong.append("no results, or not those of a run alone")
    wrong += [f"{name} stays" for name in strays(folder)]
    return {"kind": "pre-empted", "requeued": "Requeued job" in logs, "wrong": wrong}
