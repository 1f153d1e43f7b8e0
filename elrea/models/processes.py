"""Starts several processes on one machine, each with its own device, by Lightning Fabric's launcher."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from elrea.errors import ElreaError
from elrea.models.device import Device, is_out_of_memory

if TYPE_CHECKING:
    from elrea.models.log import Task

POLL = 0.2
"""Seconds between two looks at the processes' reports."""
START: Literal["spawn", "forkserver"] = "spawn"
"""How processes are started (`multiprocessing.get_context`). A forked one could not use a GPU that its parent did."""


@dataclass(frozen=True)
class Rank:
    """One of the processes.

    Attributes:
        number: From 0.
        size: Number of processes.
        device: Its own device; the number of threads is set.
    """

    number: int
    size: int
    device: Device


class Reports:
    """A Task that any of the processes may report to, and that the parent reads.

    Args:
        done: A shared counter of units.
        rows: A queue of training steps' rows. Each is one small write, so a killed process leaves no part of one.
    """

    def __init__(self, done: Any, rows: Any) -> None:
        self.done, self.rows = done, rows
        self.passed_on = 0

    def advance(self, count: int) -> None:
        with self.done.get_lock():
            self.done.value += count

    def step(self, row: Mapping[str, Any]) -> None:
        self.rows.put(dict(row))

    def pass_on(self, task: Task) -> None:
        """Reports to the parent's task what came in since the last call."""
        now = self.done.value
        task.advance(now - self.passed_on)
        self.passed_on = now
        while not self.rows.empty():
            task.step(self.rows.get())


class _Quiet(DDPStrategy):
    """DDP that does not log how the processes connect."""

    def setup_environment(self) -> None:
        with quiet():
            super().setup_environment()


def launch(device: Device, work: Callable[[Rank, Task], None], task: Task) -> None:
    """Runs a function in `device.devices` processes, connected by torch.distributed.

    Args:
        device: Each process uses one of its devices.
        work: Called in each process with its rank and a task to report to. It must be picklable.
        task: Gets the reports of all processes, a few times a second.

    Raises:
        ElreaError: The error of one of the processes, or that one died; the others are stopped.
        OSError, MemoryError: Likewise; the memory of a device counts, too.
    """
    context = multiprocessing.get_context(START)
    errors = context.SimpleQueue()
    reports = Reports(context.Value("q", 0), context.SimpleQueue())
    fabric = Fabric(
        accelerator=device.lightning()["accelerator"],
        devices=device.devices,
        strategy=_Quiet(start_method=START),
        # Not a scheduler's environment: this process may be one job of several.
        plugins=[LightningEnvironment()],
    )
    try:
        with quiet(), _watched(reports, task):
            fabric.launch(partial(_one, device, work, reports, errors))
    except ProcessException as failure:
        # Another process may have ended first, of the connection that this one broke.
        if not errors.empty():
            raise errors.get() from None
        if not isinstance(failure, ProcessExitedException):
            raise
        raise ElreaError(
            f"a process of trainer.devices={device.devices} died (exit code {failure.exit_code}); where memory is "
            "short, lower trainer.devices, training.batch_size or features.batch_tokens"
        ) from failure
    finally:
        for process in multiprocessing.active_children():  # after Ctrl-C or an error
            process.terminate()


def _one(
    device: Device,
    work: Callable[[Rank, Task], None],
    reports: Reports,
    errors: Any,
    fabric: Fabric,
) -> None:
    """Runs in each process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    own = replace(device, accelerator="cpu" if fabric.device.type == "cpu" else "auto")
    own.apply(fabric.world_size)
    try:
        work(Rank(fabric.global_rank, fabric.world_size, own), reports)
    except (ElreaError, OSError) as error:
        errors.put(error)
        os._exit(1)  # no traceback: the parent raises the error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        errors.put(MemoryError(str(error)))
        os._exit(1)


def _end_with_parent() -> None:
    """Ends this process when its parent is killed; it would wait for the other processes forever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@contextmanager
def _watched(reports: Reports, task: Task) -> Iterator[None]:
    """Passes the processes' reports on to a task."""
    finished = threading.Event()

    def poll() -> None:
        while not finished.wait(POLL):
            reports.pass_on(task)

    watcher = threading.Thread(target=poll, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
        reports.pass_on(task)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the warnings and remarks of Lightning and its launcher; errors still show."""
    names = ("pytorch_lightning", "lightning_fabric", "torch.multiprocessing.spawn")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\b")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
