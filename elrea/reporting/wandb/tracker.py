"""Weights & Biases, kept at arm's length: one run per job, and nothing about it can fail the job.

Every call into the wandb library runs in a thread of its own with a time limit. What goes wrong
is said once, in one line; after that the job goes on without.
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
_POINTS = 500  # of a curve at most: each costs 0.7 ms, and curve.json keeps them all

T = TypeVar("T")


@dataclass
class Tracker:
    """Settings of tracking, and the one W&B run that they lead to.

    Use it as a context manager: the run is then finished whatever happens, and marked as failed
    if an exception passes.
    """

    mode: str = "offline"
    """"offline" writes to the run's folder and needs no network; "online" sends at once, and
    falls back to offline where that cannot be; "disabled" does not even import wandb."""

    project: str = "elrea"
    """W&B project."""

    entity: str | None = None
    """W&B user or team; null leaves the choice to W&B (the account's default)."""

    group: str | None = None
    """Runs of one group stand together, e.g. those of one sweep."""

    name: str | None = None
    """The run's display name; null lets W&B invent one."""

    tags: list[str] = field(default_factory=list)
    """Tags to filter by."""

    folder: str | None = None
    """Where the `wandb` folder goes; null for what `start` is given, the run's own folder."""

    timeout: float = 60.0
    """Seconds that any one call to W&B may take (starting, sending the rest at the end) before
    the job goes on without it. Generous for a slow network, short beside a training run."""

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigError(f"tracking.mode is {self.mode!r}: choose {', '.join(_MODES)}")
        if not self.timeout > 0:
            raise ConfigError(f"tracking.timeout is {self.timeout}: give seconds above 0")
        self._run: Any = None
        self._kept: Path | None = None  # the folder that has yet to be sent
        self._warned = False
        self._stalled = False
        self._live: set[str] = set()  # adapters whose curves were sent while they trained

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
        """Opens the run. Where W&B cannot start, says so once and does nothing from then on.

        Args:
            config: the run's whole configuration; keys and machine paths are taken out of it.
            folder: the run's folder; the field of that name comes first.
        """
        self.finish(failed=False)
        if self.mode == "disabled":
            return
        self._warned = self._stalled = False
        self._live = set()
        self._kept = None
        if not self._call("import", prepare):
            return
        root = self.folder or folder or "."
        if self.mode == "online":
            self._run = self._call("going online", lambda: self._open(True, config, root))
        if self._run is None and not self._stalled:
            self._run = self._call("start", lambda: self._open(False, config, root))
            self._keep()

    def curve(self, adapter: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs a training curve on the adapter's own step axis, `<adapter>/step`, unless it was logged live.

        Args:
            adapter: e.g. "base" or "expert-0".
            rows: what training writes to curve.json; `step` is the axis (else the row's number).
                Of long curves every k-th row, the last, and those with a `dev_loss` are sent.
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
    def task(self, name: str, text: str, total: int, steps: int = 0) -> Iterator[Task]:
        """Logs the curve of a training while it runs (`elrea.models.log.Log`); other work is not logged."""
        if not steps or self._run is None:
            yield SILENT
            return
        self._live.add(name)
        self._log("a curve", lambda: self._define(name))
        yield LiveCurve(self, name, steps)

    def point(self, adapter: str, row: Mapping[str, Any]) -> None:
        """Logs one point of a curve."""
        self._log("a curve", lambda: self._point(adapter, row))

    def _define(self, adapter: str) -> None:
        axis = f"{adapter}/step"
        self._run.define_metric(axis, hidden=True)
        self._run.define_metric(f"{adapter}/*", step_metric=axis)

    def _point(self, adapter: str, row: Mapping[str, Any]) -> None:
        self._run.log(public({f"{adapter}/{key}": value for key, value in row.items()}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets the run's summary metrics; nested mappings stay nested."""
        self._log("the summary", lambda: self._run.summary.update(public(values)))

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Logs a table; a column may mix numbers, text and None."""

        def send() -> None:
            import wandb

            data = public([list(row) for row in rows])
            table = wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)
            self._run.log({name: table})

        self._log("a table", send)

    def images(self, paths: Mapping[str, str | Path]) -> None:
        """Logs image files under the given names."""

        def send(name: str, path: str) -> None:
            import wandb

            self._run.log({name: wandb.Image(path)})

        for name, path in paths.items():
            self._log("an image", partial(send, name, str(path)))

    def artifact(self, name: str, kind: str, key: str, facts: Mapping[str, Any]) -> None:
        """Logs a stage of the store by reference: nothing is copied, and no path of this machine goes along.

        Where the run is online and the stage was reused, it is one of the run's inputs, else of its outputs.

        Args:
            name: e.g. "expert-3".
            kind: e.g. "adapter".
            key: of the stage.
            facts: `reused`, `seconds`, `upstream` (keys of the stages that it was made of).
        """

        def send() -> None:
            import wandb

            made = wandb.Artifact(f"{kind}-{key}", type=kind, metadata=public(dict(facts)))
            made.add_reference(f"elrea://{kind}/{key}", name=name, checksum=False)
            if facts["reused"] and self._kept is None:  # offline, `use_artifact` cannot run
                self._run.use_artifact(made)
            else:
                self._run.log_artifact(made)

        self._log("an artifact", send)

    def finish(self, failed: bool) -> None:
        """Closes the run, if one is open. Safe to call again."""
        if self._run is None:
            return
        run = self._run
        closed = not self._stalled and self._call("finish", lambda: _close(run, failed))
        if not closed:
            self._keep()
        self._run = None

    def sync_line(self) -> str:
        """The command that sends an offline run, `wandb sync <folder>`; "" if all is sent."""
        if self._kept is None:
            return ""
        return f"wandb sync {shlex.quote(relative(str(self._kept)))}"

    @property
    def url(self) -> str:
        """The run's address while it is online and open, else ""."""
        return str(getattr(self._run, "url", None) or "")

    @property
    def id(self) -> str:
        """The open run's id, else ""."""
        return str(getattr(self._run, "id", None) or "")

    def _open(self, online: bool, config: Mapping[str, Any], folder: str | Path) -> Any:
        return open_run(
            online,
            folder,
            config,
            # Half of our patience, so that wandb can give up in its own words.
            0.5 * self.timeout,
            project=self.project,
            entity=self.entity,
            group=self.group,
            name=self.name,
            tags=public(self.tags) or None,
        )

    def _keep(self) -> None:
        """Remembers the open run's folder as one that `wandb sync` has yet to send."""
        files = getattr(self._run, "dir", None)  # <root>/wandb/<run>/files
        self._kept = Path(files).parent if files else None

    def _log(self, what: str, work: Callable[[], Any]) -> None:
        if self._run is not None and not self._stalled:
            self._call(what, work)

    def _call(self, what: str, work: Callable[[], T]) -> T | None:
        """Runs `work` within the time limit; None and at most one warning if that fails."""
        try:
            return within(self.timeout, work)
        except Stall as error:
            self._stalled = True  # what hangs once would hang at every call
            self._warn(what, error)
        except Exception as error:
            self._warn(what, error)
        return None

    def _warn(self, what: str, error: Exception) -> None:
        if not self._warned:
            reason = (public(str(error)).strip().splitlines() or [""])[0][:100]
            _log.warning("W&B: %s failed (%s: %s); going on", what, type(error).__name__, reason)
        self._warned = True


class LiveCurve:
    """A training that is under way, as W&B sees it.

    Args:
        tracker: With an open run.
        adapter: What is trained.
        steps: Optimiser steps of the training.
    """

    def __init__(self, tracker: Tracker, adapter: str, steps: int) -> None:
        self._tracker, self._adapter, self._steps = tracker, adapter, steps

    def advance(self, count: int) -> None:
        """Units are no part of a curve."""

    def step(self, row: Mapping[str, Any]) -> None:
        """Sends a step, or of long curves every k-th."""
        if _is_sent(row["step"] - 1, self._steps, row):
            self._tracker.point(self._adapter, row)


def _is_sent(index: int, count: int, row: Mapping[str, Any]) -> bool:
    """Whether a row of a curve is sent: every k-th, the last, and those with a loss on dev."""
    return index % -(-count // _POINTS) == 0 or index == count - 1 or "dev_loss" in row


def _close(run: Any, failed: bool) -> bool:
    run.finish(exit_code=int(failed))
    return True
