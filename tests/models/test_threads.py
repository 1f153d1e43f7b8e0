"""The number of CPU threads: as asked, as OMP_NUM_THREADS says, or as measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from elrea.models import device
from elrea.models.device import Device, faster_threads


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    faster_threads.cache_clear()
    yield
    faster_threads.cache_clear()


def slow_with(monkeypatch: pytest.MonkeyPatch, slow: Callable[[int], bool]) -> None:
    """Makes each product only wait, longer where `slow` holds for the number of threads."""

    def linear(rows: torch.Tensor, _weight: torch.Tensor) -> torch.Tensor:
        time.sleep(0.005 if slow(torch.get_num_threads()) else 0.0)
        return rows

    monkeypatch.setattr(torch.nn.functional, "linear", linear)


@pytest.mark.parametrize(
    ("asked", "variable", "threads"),
    [
        (3, None, 3),
        (3, "2", 3),
        (None, "2", 2),
        (None, "3,2", 3),
        (None, "many", 4),
        (None, "0", 4),
        (None, None, 4),
    ],
)
def test_what_is_asked_comes_before_the_variable_and_the_cores(
    asked: int | None, variable: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    Device("cpu", threads=asked).apply()
    assert torch.get_num_threads() == threads


def test_a_run_does_not_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last digits depend on the number of threads, which must be the same when it is resumed."""
    slow_with(monkeypatch, lambda threads: threads > 1)
    Device("cpu").apply()
    assert torch.get_num_threads() == 4
    Device("cpu").apply(2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("slow", [1, 4])
def test_the_faster_count_is_measured_once(slow: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_with(monkeypatch, lambda threads: threads == slow)
    torch.set_num_threads(2)
    assert faster_threads(4) == 5 - slow and torch.get_num_threads() == 2
    Device("cpu").apply(measure=True)
    assert torch.get_num_threads() == 5 - slow
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("measured twice"))
    Device("cpu").apply(measure=True)


def test_a_slow_measurement_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside much work one product with all threads may take longer than the whole measurement should."""
    taken: list[int] = []
    now = [0.0]

    def linear(*_given: torch.Tensor) -> None:
        taken.append(torch.get_num_threads())
        now[0] += 0.001 if taken[-1] == 1 else 0.3

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert faster_threads(4) == 1
    assert taken.count(4) <= 2


def test_what_is_asked_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "faster_threads", lambda _: pytest.fail("measured"))
    Device("cpu", threads=2).apply(measure=True)
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Device("cpu").apply(measure=True)
    assert torch.get_num_threads() == 3


def test_one_core_needs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("measured"))
    assert faster_threads(1) == 1
