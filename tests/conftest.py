"""What all tests share: one thread, no network, and a small backbone that is made on the spot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch and the hub's library are imported, by a test or by a process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_ERROR_REPORTING"] = "false"
# No test cuts the power; waiting for the disk takes a third of a small run's time.
os.fsync = lambda fd: None
for name in (
    "WANDB_MODE",
    "WANDB_API_KEY",
    "WANDB_DIR",
    "ELREA_STORE",
    "HYDRA_FULL_ERROR",
    "COLUMNS",
):
    os.environ.pop(name, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests real data and models would add (`tests.real_files`)."""
    from tests.real_files import skipped_tests

    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)]
    if line := skipped_tests(reasons):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are tiny, and sums come out the same in every process."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """Training's processes are forked from one that has imported torch. Spawned ones import it, each for itself."""
    from elrea.models import processes
    from tests.cli import commands  # what that one imports

    assert commands.PRELOADED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "START", "forkserver")
        yield


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Llama of two layers that knows nothing, and its byte-level tokenizer."""
    from tests.small_models import small_llama

    return small_llama(tmp_path_factory.mktemp("models") / "small")
