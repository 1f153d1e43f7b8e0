"""Work shared by several processes of one machine, each with a device of its own, by Lightning's launcher."""

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
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessExitedException

from elrea.errors import ElreaError
from elrea.models.device import Device
from elrea.models.log import Task

LOOK = 0.2
"""Seconds between two looks at how far the processes are."""


@dataclass(frozen=True)
class Member:
    """One of the processes.

    Attributes:
        rank: Which, from 0.
        size: Of how many.
        device: Its own, to load a backbone on; threads are set.
    """

    rank: int
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
        """Tells the parent's task what has been reported since the last call."""
        now = self.done.value
        task.advance(now - self.passed_on)
        self.passed_on = now
        while not self.rows.empty():
            task.step(self.rows.get())


class _Quiet(DDPStrategy):
    """Says nothing of processes that find each other."""

    def setup_environment(self) -> None:
        with quiet():
            super().setup_environment()


def launch(device: Device, work: Callable[[Member, Task], None], task: Task) -> None:
    """Has `device.devices` processes do some work; torch.distributed connects them.

    Args:
        device: Of which each process takes one.
        work: What each does, told who it is and whom to tell of its progress; it has to be picklable.
        task: Told a few times a second what all processes have reported since.

    Raises:
        ElreaError: What one of the processes raised, or that one died; the others are stopped.
        OSError: Likewise.
    """
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    reports = Reports(context.Value("q", 0), context.SimpleQueue())
    fabric = Fabric(
        accelerator=device.lightning()["accelerator"],
        devices=device.devices,
        strategy=_Quiet(start_method="spawn"),
        plugins=[
            LightningEnvironment()
        ],  # not a scheduler's: one job may have started this process
    )
    try:
        with quiet(), _watched(reports, task):
            fabric.launch(partial(_one, device, work, reports, errors))
    except ProcessExitedException as failure:
        if errors.empty():
            raise ElreaError(
                f"a process of trainer.devices={device.devices} died (exit code {failure.exit_code}); where memory is "
                "short, lower trainer.devices, training.batch_size or features.batch_tokens"
            ) from failure
        raise errors.get() from None
    finally:
        for process in multiprocessing.active_children():  # of an interrupted run
            process.terminate()


def _one(
    device: Device,
    work: Callable[[Member, Task], None],
    reports: Reports,
    errors: Any,
    fabric: Fabric,
) -> None:
    """One process's part."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    own = replace(device, accelerator="cpu" if fabric.device.type == "cpu" else "auto")
    own.apply(fabric.world_size)

    try:
        work(Member(fabric.global_rank, fabric.world_size, own), reports)
    except (ElreaError, OSError) as error:
        errors.put(error)
        os._exit(1)  # no traceback: the first process prints the line


def _end_with_parent() -> None:
    """A process whose parent was killed would else wait for the others' message for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@contextmanager
def _watched(reports: Reports, task: Task) -> Iterator[None]:
    """Passes on what the processes report."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            reports.pass_on(task)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        reports.pass_on(task)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what Lightning and its launcher remark; errors still show."""
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
