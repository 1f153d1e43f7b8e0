"""Adapters trained by several processes, as a user asks for them, and what is refused."""

from __future__ import annotations

from pathlib import Path

from elrea.models import processes
from tests.cli.commands import QUIET, Command, Ended, run


def spawned() -> None:
    """Processes start as they do for a user; in other tests they are forked, which is faster."""
    processes.START = "spawn"


def test_two_processes_train_the_base_adapter_that_one_would(
    words: list[str], tmp_path: Path
) -> None:
    command = [*words, f"store={tmp_path / 'store'}", QUIET, "until=base"]
    ended = Command(tmp_path, *command, "trainer=ddp", "training.epochs=1", before=spawned).wait()
    assert (ended.code, ended.err) == (0, "")
    assert "base is made, in the store" in ended.out
    ended = run(tmp_path, *command, "training.epochs=1", "plan=true")
    (row,) = (line.split() for line in ended.out.splitlines() if line.startswith("base "))
    assert row[-1] == "reused", "without dropout, how many processes trained it is not in its key"


def test_a_sweep_of_jobs_that_share_a_machine_is_refused(words: list[str], tmp_path: Path) -> None:
    ended: Ended = run(tmp_path, "-m", *words, QUIET, "trainer=ddp", "seed=0,1")
    assert ended.code == 1
    assert "trainer.strategy=ddp in a sweep: its jobs share this machine's devices" in " ".join(
        ended.out.split()
    )


def test_a_backbone_in_parts_trains_adapters_alone(words: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *words, QUIET, "trainer=sharded", f"store={tmp_path / 'store'}")
    assert ended.error.startswith("trainer.strategy=sharded trains adapters and nothing else, and")
    ended = run(tmp_path, *words, QUIET, "trainer=sharded", "backbone.quantise=4bit", "until=base")
    assert "backbone.quantise=null" in ended.error
