"""Logs one Weights & Biases run per job; errors and stalls of wandb cannot stop the job.

Every call of the wandb library runs in its own thread with a time limit. The first error is logged as a
one-line warning; later ones are silent. The job continues in any case.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from elrea.errors import ConfigError
from elrea.models.log import SILENT, Task
from elrea.reporting.wandb.limits import Stall, within
from elrea.reporting.wandb.opening import open_run, prepare
from elrea.reporting.wandb.privacy import public, relative

_log = logging.getLogger(__name__)
_MODES = ("offline", "online", "disabled")
_MAX_POINTS = 500  # per curve: each costs 0.7 ms, and curve.json has all of them

T = TypeVar("T")


@dataclass
class Tracker:
    """Settings of tracking (config group `tracking`), and the W&B run of this job.

    Use it as a context manager: it finishes the run, and marks it as failed if the block raises an exception.
    """

    mode: str = "offline"
    """"offline" writes to the run's folder without network access; "online" sends data at once and falls back to
    offline if it cannot; "disabled" does not import wandb."""

    project: str = "elrea"
    """W&B project."""

    entity: str | None = None
    """W&B user or team; null uses the account's default."""

    group: str | None = None
    """Group of the run; null uses `<day>/<time>` of the sweep, if the job is part of one."""

    name: str | None = None
    """Display name of the run; null lets W&B generate one."""

    tags: list[str] = field(default_factory=list)
    """Tags of the run."""

    folder: str | None = None
    """Parent of the `wandb` folder; null uses the run's folder."""

    timeout: float = 60.0
    """Time limit in seconds of each call to wandb, such as the start and the upload at the end. When a call exceeds it,
    tracking stops and the job continues."""

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigError(f"tracking.mode is {self.mode!r}: choose {', '.join(_MODES)}")
        if not self.timeout > 0:
            raise ConfigError(f"tracking.timeout is {self.timeout}: give seconds above 0")
        self._run: Any = None
        self._unsent: Path | None = None  # folder of a run that `wandb sync` has to send
        self._warned = False
        self._stalled = False
        self._live: set[str] = set()  # adapters whose curves were logged during training

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(failed=kind is not None)

    def start(self, config: Mapping[str, Any], folder: str | Path | None = None) -> None:
        """Opens the run. If W&B cannot start, logs a warning, and all later calls do nothing.

        Args:
            config: Complete configuration of the run; secrets and absolute paths are hidden.
            folder: Of the run; used unless the setting `folder` is given.
        """
        self.finish(failed=False)
        if self.mode == "disabled":
            return
        self._warned = self._stalled = False
        self._live = set()
        self._unsent = None
        if not self._call("import", prepare):
            return
        root = self.folder or folder or "."
        if self.mode == "online":
            self._run = self._call("going online", lambda: self._open(True, config, root))
        if self._run is None and not self._stalled:
            self._run = self._call("start", lambda: self._open(False, config, root))
            self._remember_unsent()

    def curve(self, adapter: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs a training curve on the adapter's own step axis, `<adapter>/step`, unless it was logged live.

        Args:
            adapter: Name, e.g. "base" or "expert-0".
            rows: Rows of curve.json; the axis is `step`, or the row's number if it is missing.
                Of long curves, every k-th row, the last row and rows with a `dev_loss` are sent.
        """
        if adapter in self._live:
            return

        def send() -> None:
            self._define(adapter)
            for index, row in enumerate(rows):
                if _is_sent(index, len(rows), row):
                    self._point(adapter, {"step": index, **row})

        self._log("a curve", send)

    @contextmanager
    def task(
        self, name: str, text: str, total: int, steps: int = 0, unit: str = "examples"
    ) -> Iterator[Task]:
        """Logs training curves live; other tasks are not logged. Implements `elrea.models.log.Log`."""
        if not steps or self._run is None:
            yield SILENT
            return
        self._live.add(name)
        self._log("a curve", lambda: self._define(name))
        yield LiveCurve(self, name, steps)

    def point(self, adapter: str, row: Mapping[str, Any]) -> None:
        """Logs one point of a live curve."""
        self._log("a curve", lambda: self._point(adapter, row))

    def _define(self, adapter: str) -> None:
        axis = f"{adapter}/step"
        self._run.define_metric(axis, hidden=True)
        self._run.define_metric(f"{adapter}/*", step_metric=axis)

    def _point(self, adapter: str, row: Mapping[str, Any]) -> None:
        self._run.log(public({f"{adapter}/{key}": value for key, value in row.items()}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets summary metrics of the run; nested mappings stay nested."""
        self._log("the summary", lambda: self._run.summary.update(public(values)))

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Logs a table; a column may contain numbers, text and None. A second column of one name gets a number."""

        def send() -> None:
            import wandb

            data = public([list(row) for row in rows])
            table = wandb.Table(columns=distinct(columns), data=data, allow_mixed_types=True)
            self._run.log({name: table})

        self._log("a table", send)

    def images(self, paths: Mapping[str, str | Path]) -> None:
        """Logs image files by name."""

        def send(name: str, path: str) -> None:
            import wandb

            self._run.log({name: wandb.Image(path)})

        for name, path in paths.items():
            self._log("an image", partial(send, name, str(path)))

    def artifact(self, name: str, kind: str, key: str, facts: Mapping[str, Any]) -> None:
        """Logs a stage of the store by reference, without its files and without local paths.

        In an online run, a reused stage is an input of the run; every other stage is an output.

        Args:
            name: Of the stage, e.g. "expert-3".
            kind: Of the stage, e.g. "adapter".
            key: Of the stage.
            facts: Metadata: `reused`, `seconds`, `upstream` (keys of its input stages).
        """

        def send() -> None:
            import wandb

            made = wandb.Artifact(f"{kind}-{key}", type=kind, metadata=public(dict(facts)))
            made.add_reference(f"elrea://{kind}/{key}", name=name, checksum=False)
            if facts["reused"] and self._unsent is None:  # `use_artifact` needs to be online
                self._run.use_artifact(made)
            else:
                self._run.log_artifact(made)

        self._log("an artifact", send)

    def finish(self, failed: bool) -> None:
        """Finishes the run, if one is open. May be called repeatedly."""
        if self._run is None:
            return
        run = self._run
        closed = not self._stalled and self._call("finish", lambda: _close(run, failed))
        if not closed:
            self._remember_unsent()
        self._run = None

    def sync_line(self) -> str:
        """The command that sends an offline run: `wandb sync <folder>`; "" if nothing is left to send."""
        if self._unsent is None:
            return ""
        return f"wandb sync {shlex.quote(relative(str(self._unsent)))}"

    @property
    def url(self) -> str:
        """URL of the run while it is online and open, else ""."""
        return str(getattr(self._run, "url", None) or "")

    @property
    def id(self) -> str:
        """Id of the open run, else ""."""
        return str(getattr(self._run, "id", None) or "")

    def _open(self, online: bool, config: Mapping[str, Any], folder: str | Path) -> Any:
        return open_run(
            online,
            folder,
            config,
            # Half of the time limit, so that wandb raises its own error before the limit.
            0.5 * self.timeout,
            project=self.project,
            entity=self.entity,
            group=self.group,
            name=self.name,
            tags=public(self.tags) or None,
        )

    def _remember_unsent(self) -> None:
        """Keeps the open run's folder for `sync_line`."""
        files = getattr(self._run, "dir", None)  # <root>/wandb/<run>/files
        self._unsent = Path(files).parent if files else None

    def _log(self, what: str, work: Callable[[], Any]) -> None:
        if self._run is not None and not self._stalled:
            self._call(what, work)

    def _call(self, what: str, work: Callable[[], T]) -> T | None:
        """Calls `work` with the time limit; on an error returns None and warns, once per run."""
        try:
            return within(self.timeout, work)
        except Stall as error:
            self._stalled = True  # later calls would probably stall too
            self._warn(what, error)
        except Exception as error:
            self._warn(what, error)
        return None

    def _warn(self, what: str, error: Exception) -> None:
        if not self._warned:
            reason = (public(str(error)).strip().splitlines() or [""])[0][:100]
            _log.warning(
                "W&B: %s failed (%s: %s); continuing without it", what, type(error).__name__, reason
            )
        self._warned = True


def distinct(names: Sequence[str]) -> list[str | int]:
    """The names, with a number behind each that came before, as "source (2)"."""
    found: list[str | int] = []
    for name in names:
        new, number = name, 2
        while new in found or (new != name and new in names):
            new, number = f"{name} ({number})", number + 1
        found.append(new)
    return found


class LiveCurve:
    """Logs the curve of a running training to W&B.

    Args:
        tracker: With an open run.
        adapter: Name of the trained adapter.
        steps: Total number of optimiser steps.
    """

    def __init__(self, tracker: Tracker, adapter: str, steps: int) -> None:
        self._tracker, self._adapter, self._steps = tracker, adapter, steps

    def advance(self, count: int) -> None:
        """Does nothing: curves have no units."""

    def step(self, row: Mapping[str, Any]) -> None:
        """Logs a step; of long curves only every k-th."""
        if _is_sent(row["step"] - 1, self._steps, row):
            self._tracker.point(self._adapter, row)


def _is_sent(index: int, count: int, row: Mapping[str, Any]) -> bool:
    """Whether a row of a curve is sent: every k-th, the last, and those with a dev loss."""
    return index % -(-count // _MAX_POINTS) == 0 or index == count - 1 or "dev_loss" in row


def _close(run: Any, failed: bool) -> bool:
    run.finish(exit_code=int(failed))
    return True
