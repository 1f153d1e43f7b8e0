"""Runs of a sweep: locks and resumes its folder, records each job's state in status.json, summarises all jobs."""

from __future__ import annotations

import atexit
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from elrea.commands.exit import line_of, one_line_errors, output_closed
from elrea.commands.jobs.leftovers import clear, missing
from elrea.commands.jobs.run_folder import check_run_folder
from elrea.config import load_config, register_resolver
from elrea.errors import ConfigError, StoreError
from elrea.reporting.sweeps import STATUS, SUMMARY, SWEEP, as_csv, read_jobs, varied_values
from elrea.store.files import read_json, remove_temporary_files, sha256, write_json, write_text
from elrea.store.lock import Lease
from elrea.store.uses import record_use

SUCCEEDED = ("done", "prepared")
"""States of a job that did all it was asked to do."""
NOT_IDENTIFYING = ("debug", "plan", "until", "name")
"""Keys that do not change the final results of a job."""
RESOLVER = "sweep_folder"
"""Name of the resolver `${sweep_folder:}` in conf/config.yaml."""
ROOT = Path("multirun")
"""Parent folder of all sweeps, relative to the working folder."""


class Sweep(Callback):
    """Hydra callback at the start of a run or a sweep, and at a sweep's end (`hydra.callbacks` in conf/config.yaml)."""

    claimed: str | None = None
    """`<day>/<time>` of the sweep that this process runs, below `ROOT`."""
    made: Sequence[Path] = ()
    """Folders that Hydra makes for a single run, the run's own first."""
    refused: bool = False
    """Whether a job of the sweep has failed in this process."""
    _lease: Lease | None = None
    _end: Callable[[], None] = staticmethod(lambda: None)

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Checks the run's folder before Hydra writes to it, and notes which folders are not there yet: those of a plan
        or of a refused run are removed again."""
        with _exit_on_error():
            check_run_folder(Path(config.hydra.run.dir), config, "hydra.run.dir")
            if config.get("plan"):  # the folder may be that of another run
                with open_dict(config):
                    config.hydra.output_subdir = None
        with suppress(OmegaConfBaseException):  # Hydra reports it
            Sweep.made = missing(Path(config.hydra.run.dir).absolute())

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Locks the sweep's folder: hydra.sweep.dir if it is set, else the last sweep of the same command, else new."""
        with _exit_on_error():
            folder = OmegaConf.to_container(config.hydra.sweep, resolve=False)
            if isinstance(folder, dict) and RESOLVER in str(folder["dir"]):
                Sweep.claimed, Sweep._lease = claim_default_folder(typed(config.hydra))
            else:
                Sweep._lease = claim_named_folder(Path(config.hydra.sweep.dir), typed(config.hydra))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes sweep.csv and report.html, prints the jobs' table, and exits with 1 if a job failed."""
        with _exit_on_error():
            folder = Path(config.hydra.sweep.dir)
            jobs = read_jobs(folder)
            if not jobs:  # plan=true
                Sweep._end()
            else:
                write_text(folder / "sweep.csv", as_csv(jobs))
                from elrea.reporting.sweep_report import write_report

                _show(folder, jobs, write_report(folder, sys.argv[1:], jobs))
            if Sweep.refused or any(job["state"] not in SUCCEEDED for job in jobs):
                sys.exit(1)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Prints errors as `one_line_errors` does and ends the process with 1.

    Hydra would only warn about an exception in a callback, and continue.
    """
    try:
        with one_line_errors():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def typed(hydra: Any) -> list[str]:
    """Overrides of the job, unresolved: they are printed and saved, so `${oc.env:KEY}` must not become a secret."""
    words = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return [str(word) for word in words] if isinstance(words, list) else []


def folder_name() -> str:
    """Value of `${sweep_folder:}`: the claimed folder, or the current day and time."""
    return Sweep.claimed or datetime.now().strftime("%Y-%m-%d/%H-%M-%S")


register_resolver(RESOLVER, folder_name, use_cache=True)


def claim_default_folder(words: Sequence[str]) -> tuple[str, Lease]:
    """Locks the newest sweep of the same command that no other process is running, or a new folder.

    Args:
        words: Overrides of the sweep.

    Returns:
        `<day>/<time>` of the folder below `ROOT`, and its lock.

    Raises:
        StoreError: No free folder name was found.
    """
    for path in sorted(ROOT.glob(f"*/*/{SWEEP}"), reverse=True):
        with suppress(StoreError, OSError, AttributeError):
            if read_json(path).get("overrides") == list(words) and (lease := _lock(path.parent)):
                return path.parent.relative_to(ROOT).as_posix(), lease
    name = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    for number in range(2, 1000):
        folder = ROOT / name
        made = missing(folder.absolute())
        with suppress(FileExistsError):
            folder.mkdir(parents=True, exist_ok=False)
            if lease := _lock(folder, made):
                write_json(folder / SWEEP, {"overrides": list(words)})
                return name, lease
        name = f"{name.split('_')[0]}_{number}"
    raise StoreError(f"{ROOT / name}: too many sweeps start at the same second; try again")


def claim_named_folder(folder: Path, words: Sequence[str]) -> Lease:
    """Locks the folder that hydra.sweep.dir names, to start a sweep there or to resume it.

    Args:
        folder: The named folder.
        words: Overrides of the sweep.

    Returns:
        The folder's lock.

    Raises:
        ConfigError: The folder has a single run or jobs of a different sweep, or another process is running this sweep.
    """
    if (folder / STATUS).is_file() or (folder / "config.yaml").is_file():
        raise ConfigError(f"hydra.sweep.dir={folder}: holds a single run; name another folder")
    jobs = any(folder.glob(f"*/{STATUS}"))
    if jobs and _identifying(words) != _identifying(_recorded_overrides(folder)):
        raise ConfigError(
            f"hydra.sweep.dir={folder}: has jobs of a different sweep; name another folder, or repeat that "
            "sweep's command to resume it"
        )
    made = missing(folder.absolute())
    folder.mkdir(parents=True, exist_ok=True)
    lease = _lock(folder, made)
    if lease is None:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: another process is running this sweep; wait for it, or name another folder"
        )
    if not (jobs and (folder / SWEEP).is_file()):
        write_json(folder / SWEEP, {"overrides": list(words)})
    return lease


def _recorded_overrides(folder: Path) -> Any:
    """Overrides of the sweep in a folder, from sweep.json or from Hydra's multirun.yaml; None if neither has them."""
    with suppress(StoreError, AttributeError):
        if words := read_json(folder / SWEEP).get("overrides"):
            return words
    with suppress(ConfigError, OmegaConfBaseException):
        cfg = load_config(folder / "multirun.yaml")
        return OmegaConf.to_container(cfg, resolve=False)["hydra"]["overrides"]["task"]  # type: ignore[index,call-overload]
    return None


def _identifying(words: Any) -> list[str] | None:
    """Overrides that distinguish sweeps: all except those that show a plan, debug, or stop early."""
    if not isinstance(words, list | tuple):
        return None
    return [
        str(word)
        for word in words
        if str(word).lstrip("+").partition("=")[0] not in NOT_IDENTIFYING
    ]


def _lock(folder: Path, made: Sequence[Path] = ()) -> Lease | None:
    """Locks a folder until this process ends; None if another process has it locked.

    Args:
        folder: Of the sweep.
        made: The folders that were made for it; without any job in them they are removed at the end.
    """
    folder = folder.absolute()  # the working folder may be another one at the end
    lease = Lease(folder / "sweep.lease")
    if not lease.acquire(wait=False):
        return None

    def end() -> None:
        lease.release()
        if made:
            clear(folder, (SWEEP, "multirun.yaml"), made)

    Sweep._end = staticmethod(end)
    atexit.register(end)
    return lease


class Record:
    """Writes a job's status.json: state `running`, then `done`, `prepared`, `failed` (with `error`) or `stopped`.

    Use it as a context manager: an exception that leaves the block is recorded as `failed` or `stopped`.

    A single run that is refused before it begins leaves the folder as it was, as a plan does: results of an earlier run
    stay valid.

    Args:
        folder: Of the job.
        facts: Other fields of status.json: `words`, `command`, `chosen`.
        kept: Whether to record an end before `begin`, as a job of a sweep does.
        store: Where it is recorded too which stages the job needs.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        *,
        kept: bool = True,
        store: Path | None = None,
    ) -> None:
        self.folder, self.facts, self._store = folder, dict(facts), store
        self.begun, self._kept = False, kept
        self._began = time.monotonic()

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        if error is None or not (self._kept or self.begun):
            return
        with suppress(StoreError):  # must not hide the job's own error
            if isinstance(error, Exception) and not output_closed(error):
                line = line_of(error) or f"{type(error).__name__}: {error}"
                self._write("failed", error=" ".join(line.split()))
            else:
                closed = output_closed(error)
                why = "its output was closed" if closed else "stopped by a signal"
                self._write("stopped", error=why)

    @property
    def seconds(self) -> float:
        """Since the job was started."""
        return time.monotonic() - self._began

    def begin(self, key: str, stages: Mapping[str, str] | None = None) -> None:
        """Records that the job is running.

        Args:
            key: Hash of everything that determines the results (`job_key`).
            stages: Keys of the stages that the job needs, by name; `elrea store gc` keeps them.
        """
        remove_temporary_files(self.folder, "")
        self.begun = True
        self.facts["key"] = key
        self.needs(stages or {})

    def needs(self, stages: Mapping[str, str]) -> None:
        """Updates the stages that the job needs; some keys are known only after earlier stages are made."""
        self.facts["stages"] = {name: {"key": key} for name, key in stages.items()}
        self._write("running")
        if self._store and stages:
            record_use(self._store, self.folder, stages)

    def end(self, key: str) -> None:
        """Records that the job is done, with the checksum of summary.json.

        Args:
            key: The job's key, now with all of its stages.
        """
        self.facts |= {"key": key, SUMMARY: sha256(self.folder / SUMMARY)}
        self._write("done")

    def prepared(self) -> None:
        """Records that the stages up to `until=` are made; nothing was scored."""
        self._write("prepared")

    def finished(self, key: str) -> bool:
        """Whether the folder has complete results of a job with this key."""
        try:
            status = read_json(self.folder / STATUS)
        except StoreError:
            return False
        if not isinstance(status, dict):
            return False
        path = self.folder / SUMMARY
        same = (status.get("state"), status.get("key")) == ("done", key)
        return same and path.is_file() and status.get(SUMMARY) == sha256(path)

    def _write(self, state: str, **more: Any) -> None:
        status = {"state": state, **self.facts, "seconds": round(self.seconds, 3), **more}
        write_json(self.folder / STATUS, status)


def failed(number: int, error: Exception) -> None:
    """Prints to stderr that a job of the sweep failed; the other jobs continue."""
    Sweep.refused = True
    line = line_of(error)
    if line is None:
        traceback.print_exc()
    print(f"job {number} failed: {' '.join((line or str(error)).split())}", file=sys.stderr)


def failures(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line per reason why jobs did not succeed, with the numbers of those jobs.

    Args:
        jobs: As `elrea.reporting.sweeps.read_jobs` returns them.
    """
    numbers: dict[str, list[str]] = {}
    for job in jobs:
        if job["state"] not in SUCCEEDED:
            why = f"{job['state']}: {job.get('error', 'killed')}"
            numbers.setdefault(why, []).append(str(job["number"]))
    return [
        f"{'jobs' if len(them) > 1 else 'job'} {', '.join(them)} {why}"
        for why, them in numbers.items()
    ]


def hint(jobs: Sequence[Mapping[str, Any]]) -> str:
    """How to make the jobs that did not succeed; empty if all did. One that failed would fail again as it is.

    Args:
        jobs: As for `failures`.
    """
    states = {job["state"] for job in jobs if job["state"] not in SUCCEEDED}
    if "failed" in states:
        return "; mend what failed, and run the command again"
    return "; run the same command again to resume the others" if states else ""


def _show(
    folder: Path, jobs: Sequence[Mapping[str, Any]], means: Sequence[Mapping[str, Any]]
) -> None:
    from elrea.reporting.progress import say, screen
    from elrea.reporting.sweep_report import row_keys
    from elrea.reporting.terminal import MOST_ROWS, means_table, sweep_table, wrapped

    out = screen()
    out.print(sweep_table(jobs, varied_values(jobs)))
    if len(means) > MOST_ROWS:
        say(out, f"Means over seeds of {len(means)} rows are in report.html")
    elif any(row["seeds"] > 1 for row in means):
        out.print(means_table(means, row_keys(jobs)))
    for line in failures(jobs):
        say(out, wrapped(line))
    done = sum(job["state"] in SUCCEEDED for job in jobs)
    say(out, f"{done} of {len(jobs)} jobs are done{hint(jobs)}")
    say(out, f"Everything is in {folder}")
