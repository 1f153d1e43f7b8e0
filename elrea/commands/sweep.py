"""A sweep's folder and jobs: which job is finished already, what became of each, and how the whole ended."""

from __future__ import annotations

import atexit
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elrea.commands.messages import line_of, one_line_errors
from elrea.config import load_config
from elrea.errors import ConfigError, StoreError
from elrea.reporting.sweeps import STATUS, SUMMARY, as_csv, read_jobs, varied_values, write_report
from elrea.store.files import read_json, remove_temporary_files, sha256, write_json, write_text
from elrea.store.lock import Lease

SWEEP = "sweep.json"
ENDED = ("done", "prepared")
"""States of a job that made what it was to make."""
LOOKS = ("debug", "plan", "until")
"""Keys that change nothing in what a job leaves in the end."""
RESOLVER = "sweep_folder"
"""`${sweep_folder:}` in conf/config.yaml."""
ROOT = Path("multirun")
"""Where sweeps are kept, seen from the working folder."""


class Sweep(Callback):
    """Hydra tells it when a sweep begins and ends (`hydra.callbacks` in conf/config.yaml)."""

    claimed: str | None = None
    """`<day>/<time>` of this process' sweep, below `ROOT`."""
    _lease: Lease | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Takes the folder of the last sweep by the same words, or a new one; with hydra.sweep.dir=... it is that."""
        with _ending():
            folder = OmegaConf.to_container(config.hydra.sweep, resolve=False)
            if isinstance(folder, dict) and RESOLVER in str(folder["dir"]):
                Sweep.claimed, Sweep._lease = claim(typed(config.hydra))
            else:
                Sweep._lease = enter(Path(config.hydra.sweep.dir), typed(config.hydra))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes sweep.csv, shows how the jobs ended, and ends with 1 where one failed."""
        with _ending():
            folder = Path(config.hydra.sweep.dir)
            jobs = read_jobs(folder)
            if not jobs:
                return  # plan=true
            write_text(folder / "sweep.csv", as_csv(jobs))
            write_report(folder, sys.argv[1:], jobs)
            _show(folder, jobs)
            if any(job["state"] not in ENDED for job in jobs):
                sys.exit(1)


@contextmanager
def _ending() -> Iterator[None]:
    """As `one_line_errors`, and other errors end the process too: Hydra turns what a callback raises into a warning
    and goes on."""
    try:
        with one_line_errors():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def typed(hydra: Any) -> list[str]:
    """The job's words as they were typed: `${oc.env:KEY}` stays a name, since they are shown and written down."""
    words = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return [str(word) for word in words] if isinstance(words, list) else []


def folder_name() -> str:
    """What `${sweep_folder:}` stands for."""
    return Sweep.claimed or datetime.now().strftime("%Y-%m-%d/%H-%M-%S")


OmegaConf.register_new_resolver(RESOLVER, folder_name, use_cache=True, replace=True)


def claim(words: Sequence[str]) -> tuple[str, Lease]:
    """`<day>/<time>` of the newest sweep by these words that no other process is at, else of now; and its lease."""
    for path in sorted(ROOT.glob(f"*/*/{SWEEP}"), reverse=True):
        with suppress(StoreError, OSError, AttributeError):
            if read_json(path).get("overrides") == list(words) and (held := _hold(path.parent)):
                return path.parent.relative_to(ROOT).as_posix(), held
    name = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    for number in range(2, 1000):
        folder = ROOT / name
        with suppress(FileExistsError):
            folder.mkdir(parents=True, exist_ok=False)
            if held := _hold(folder):
                write_json(folder / SWEEP, {"overrides": list(words)})
                return name, held
        name = f"{name.split('_')[0]}_{number}"
    raise StoreError(f"{ROOT / name}: too many sweeps begin at once")


def enter(folder: Path, words: Sequence[str]) -> Lease:
    """Takes a folder that the user named, for a new sweep or for the one whose jobs are there.

    Raises:
        ConfigError: The jobs there are another sweep's, and would be overwritten or counted as this one's; or another
            process is at them.
    """
    jobs = any(folder.glob(f"*/{STATUS}"))
    if jobs and _lasting(words) != _lasting(_words_of(folder)):
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds the jobs of another sweep; name another folder, or start that sweep "
            "again by the same words"
        )
    folder.mkdir(parents=True, exist_ok=True)
    held = _hold(folder)
    if held is None:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: another process is at this sweep; wait for it, or name another folder"
        )
    if not (jobs and (folder / SWEEP).is_file()):
        write_json(folder / SWEEP, {"overrides": list(words)})
    return held


def _words_of(folder: Path) -> Any:
    """The words of the sweep that made the jobs in a folder, from our file or from Hydra's; None if neither says."""
    with suppress(StoreError, AttributeError):
        if words := read_json(folder / SWEEP).get("overrides"):
            return words
    with suppress(ConfigError, OmegaConfBaseException):
        cfg = load_config(folder / "multirun.yaml")
        return OmegaConf.to_container(cfg, resolve=False)["hydra"]["overrides"]["task"]  # type: ignore[index,call-overload]
    return None


def _lasting(words: Any) -> list[str] | None:
    """The words that make a sweep what it is; what only looks at it, or stops it early, makes no other of it."""
    if not isinstance(words, list | tuple):
        return None
    return [str(word) for word in words if str(word).lstrip("+").partition("=")[0] not in LOOKS]


def _hold(folder: Path) -> Lease | None:
    """The folder's lease, to be kept as long as this process lives."""
    lease = Lease(folder / "sweep.lease")
    if not lease.acquire(wait=False):
        return None
    atexit.register(lease.release)
    return lease


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

    def begin(self, key: str, stages: Mapping[str, str] | None = None) -> None:
        """The job is about to work.

        Args:
            key: Names all that goes into its results.
            stages: Keys of the stages that it needs, by name: `elrea store gc` keeps them.
        """
        remove_temporary_files(self.folder, "")
        self.facts["key"] = key
        self.needs(stages or {})

    def needs(self, stages: Mapping[str, str]) -> None:
        """More of the stages are known that the job needs."""
        self.facts["stages"] = {name: {"key": key} for name, key in stages.items()}
        self._note("running")

    def end(self, key: str) -> None:
        """The job's results are there; by now it is known how many stages there are."""
        self.facts |= {"key": key, SUMMARY: sha256(self.folder / SUMMARY)}
        self._note("done")

    def prepared(self) -> None:
        """The job made what it was to make (`until=`), and scored nothing."""
        self._note("prepared")

    def finished(self, key: str) -> bool:
        """Whether the folder holds a job's results that came of the same."""
        try:
            status = read_json(self.folder / STATUS)
        except StoreError:
            return False
        if not isinstance(status, dict):
            return False
        path = self.folder / SUMMARY
        same = (status.get("state"), status.get("key")) == ("done", key)
        return same and path.is_file() and status.get(SUMMARY) == sha256(path)

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


def _show(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    from elrea.reporting.progress import screen
    from elrea.reporting.terminal import sweep_table

    out = screen()
    out.print(sweep_table(jobs, varied_values(jobs)))
    for job in jobs:
        if job["state"] not in ENDED:
            line = f"job {job['number']} {job['state']}: {job.get('error', 'killed')}"
            out.print(line, soft_wrap=True, highlight=False, markup=False)
    done = sum(job["state"] in ENDED for job in jobs)
    left = "" if done == len(jobs) else "; the same command again makes the others"
    line = f"{done} of {len(jobs)} jobs are done{left}. Everything is in {folder}"
    out.print(line, soft_wrap=True, highlight=False, markup=False)
