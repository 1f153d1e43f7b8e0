"""A sweep's folder and jobs: which job is finished already, what became of each, and how the whole ended."""

from __future__ import annotations

import csv
import io
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from elrea.cli import line_of
from elrea.errors import StoreError
from elrea.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from filelock import FileLock

STATUS, SWEEP, SUMMARY = "status.json", "sweep.json", "summary.json"
ROOT = Path("multirun")
"""Where sweeps are kept, seen from the working folder."""


class Sweep(Callback):
    """Hydra tells it when a sweep begins and ends (`hydra.callbacks` in conf/config.yaml)."""

    claimed: str | None = None
    """`<day>/<time>` of this process' sweep, below `ROOT`."""
    _lock: FileLock | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Takes the folder of the last sweep by the same words, or a new one."""
        words = [str(word) for word in config.hydra.overrides.task]
        Sweep.claimed, Sweep._lock = claim(words)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes sweep.csv, shows how the jobs ended, and ends with 1 where one failed."""
        folder = Path(config.hydra.sweep.dir)
        jobs = read_jobs(folder)
        if not jobs:
            return  # plan=true
        write_text(folder / "sweep.csv", as_csv(jobs))
        _show(folder, jobs)
        if any(job["state"] != "done" for job in jobs):
            sys.exit(1)


def folder_name() -> str:
    """What `${sweep_folder:}` stands for."""
    return Sweep.claimed or datetime.now().strftime("%Y-%m-%d/%H-%M-%S")


OmegaConf.register_new_resolver("sweep_folder", folder_name, use_cache=True, replace=True)


def claim(words: Sequence[str]) -> tuple[str, FileLock]:
    """`<day>/<time>` of the newest sweep by these words that no other process is at, else of now; and its lock."""
    from filelock import FileLock, Timeout

    def lock(folder: Path) -> FileLock:
        held = FileLock(folder / "sweep.lock")
        held.acquire(timeout=0)
        return held

    for path in sorted(ROOT.glob(f"*/*/{SWEEP}"), reverse=True):
        with suppress(StoreError, Timeout, OSError, AttributeError):
            if read_json(path).get("overrides") == list(words):
                return path.parent.relative_to(ROOT).as_posix(), lock(path.parent)
    name = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    for number in range(2, 1000):
        folder = ROOT / name
        with suppress(FileExistsError, Timeout):
            folder.mkdir(parents=True, exist_ok=False)
            held = lock(folder)
            write_json(folder / SWEEP, {"overrides": list(words)})
            return name, held
        name = f"{name.split('_')[0]}_{number}"
    raise StoreError(f"{ROOT / name}: too many sweeps begin at once")


class Record:
    """A job's `status.json`: `running`, then `done`, `failed` with its `error`, or `stopped`.

    Args:
        folder: Of the job.
        facts: What else to write there.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, dict(facts)
        self._began = time.monotonic()

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        if error is None:
            return
        with suppress(StoreError):  # the error under way matters more
            if isinstance(error, Exception):
                line = line_of(error) or f"{type(error).__name__}: {error}"
                self._note("failed", error=" ".join(line.split()))
            else:
                self._note("stopped", error="stopped from outside")

    def begin(self, key: str) -> None:
        """The job is about to work; `key` names all that goes into its results."""
        self.facts["key"] = key
        self._note("running")

    def end(self, key: str) -> None:
        """The job's results are there; by now it is known how many stages there are."""
        self.facts["key"] = key
        self._note("done")

    def finished(self, key: str) -> bool:
        """Whether the folder holds a job's results that came of the same."""
        try:
            status = read_json(self.folder / STATUS)
        except StoreError:
            return False
        same = isinstance(status, dict) and (status.get("state"), status.get("key")) == (
            "done",
            key,
        )
        return same and (self.folder / SUMMARY).is_file()

    def _note(self, state: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        found = {"state": state, **self.facts, "seconds": seconds, **more}
        write_json(self.folder / STATUS, found)


def failed(number: int, error: Exception) -> None:
    """Says that a job failed; its siblings go on."""
    line = line_of(error)
    if line is None:
        traceback.print_exc()
    print(f"job {number} failed: {' '.join((line or str(error)).split())}", file=sys.stderr)


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """status.json of every job by number, with `number`, and `strategies` of summary.json where there are any."""
    jobs = []
    for path in folder.glob(f"*/{STATUS}"):
        with suppress(StoreError):
            job = {**read_json(path), "number": path.parent.name, "strategies": {}}
            if job["state"] == "done":
                job["strategies"] = read_json(path.with_name(SUMMARY))["strategies"]
            jobs.append(job)
    return sorted(jobs, key=lambda job: (len(job["number"]), job["number"]))


def varied(jobs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Keys whose values differ between the jobs -> the value of each job."""
    words = [dict(word.lstrip("+~").partition("=")[::2] for word in job["words"]) for job in jobs]
    keys = list(dict.fromkeys(key for given in words for key in given))
    found = {key: [given.get(key, "") for given in words] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def as_csv(jobs: Sequence[Mapping[str, Any]]) -> str:
    """A row per job and strategy: what was varied, and what it came to. A cell that a spreadsheet would take for a
    formula begins with an apostrophe."""
    keys = varied(jobs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = ["accuracy", "ci95_low", "ci95_high", "delta_to_base", "forward_passes"]
    writer.writerow(["job", *keys, "state", "seconds", "strategy", "n", *figures])
    for i, job in enumerate(jobs):
        head = [job["number"], *(values[i] for values in keys.values()), job["state"]]
        rows = job["strategies"] or {"": {}}
        for name, row in rows.items():
            low, high = row.get("ci95") or ("", "")
            own = [row.get("accuracy", ""), low, high, row.get("delta_to_base")]
            cells = [*head, job["seconds"], name, row.get("n", ""), *own, row.get("forward_passes")]
            writer.writerow([_plain(cell) for cell in cells])
    return text.getvalue()


def _plain(cell: Any) -> Any:
    risky = isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{cell}" if risky else "" if cell is None else cell


def _show(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    from elrea.tracking.progress import screen
    from elrea.tracking.screen import sweep_table

    out = screen()
    out.print(sweep_table(jobs, varied(jobs)))
    for job in jobs:
        if job["state"] != "done":
            line = f"job {job['number']} {job['state']}: {job.get('error', 'killed')}"
            out.print(line, soft_wrap=True, highlight=False, markup=False)
    done = sum(job["state"] == "done" for job in jobs)
    left = "" if done == len(jobs) else "; the same command again makes the others"
    line = f"{done} of {len(jobs)} jobs are done{left}. Everything is in {folder}"
    out.print(line, soft_wrap=True, highlight=False, markup=False)
