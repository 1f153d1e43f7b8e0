"""`--threads` of the commands on a finished run, and what the entry does before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import arguments, chat, merge, neighbours, predict
from elrea.errors import ConfigError
from elrea.models import device
from elrea.models.device import MOST_THREADS, Device
from tests.cli.commands import ROOT

NEEDED: dict[Callable[[list[str]], None], list[str]] = {
    chat.main: [],
    predict.main: ["--in", "prompts.jsonl", "--out", "answers.jsonl"],
    merge.main: ["--out", "merged"],
    neighbours.main: ["a prompt"],
}


@pytest.mark.parametrize("main", NEEDED)
@pytest.mark.parametrize("threads", ["0", "-1", str(MOST_THREADS + 1)])
def test_a_wrong_number_is_refused_at_once(
    main: Callable[[list[str]], None], threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^--threads {threads}: must be 1 to {MOST_THREADS}$"):
        main([str(tmp_path), *NEEDED[main], "--threads", threads])


@pytest.mark.parametrize(("words", "threads"), [(["--threads", "3"], 3), ([], None)])
def test_the_ensemble_is_loaded_with_that_number(
    words: list[str], threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments.ensemble_parser("chat", "").parse_args(["run", *words])
    found: dict[str, Any] = {}
    monkeypatch.setattr(arguments, "check_arguments", lambda _given: {})
    monkeypatch.setattr(
        "elrea.pipeline.assemble.ensemble_of", lambda *_, **more: found.update(more)
    )
    arguments.load_ensemble(given)
    assert found["device"] == Device(threads=threads)


@pytest.mark.parametrize(("before", "after"), [(None, "passive"), ("active", "active")])
def test_idle_threads_sleep_unless_the_user_has_chosen(
    before: str | None, after: str, tmp_path: Path
) -> None:
    """The variable is there when the command's module is imported, before it can import torch."""
    script = (
        "import os, sys, importlib, elrea.commands.cli as cli\n"
        "def seen(name):\n"
        "    print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)\n"
        "    sys.exit()\n"
        "cli.import_module = seen\n"
        "cli.main(['chat', 'run'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(ROOT), **({"OMP_WAIT_POLICY": before} if before else {})}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout.split() == [after, "False"], done


@pytest.mark.parametrize(("cores", "running", "given", "policy"), [
    (2, 1, {}, None),  # a machine of its own
    (2, 2, {}, "passive"),  # one other process
    (8, 4, {"OMP_NUM_THREADS": "4"}, None),  # cores enough for both
    (8, 6, {"OMP_NUM_THREADS": "4"}, "passive"),
    (2, 2, {"OMP_WAIT_POLICY": "active"}, "active"),  # the user has chosen
    (2, 2, {"GOMP_SPINCOUNT": "100"}, None),
    (2, None, {}, None),  # the system does not say
])  # fmt: skip
def test_a_runs_threads_sleep_beside_other_work(
    cores: int, running: int | None, given: dict[str, str], policy: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in (*device.SPIN, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr(device, "runnable_tasks", lambda: running)
    monkeypatch.setattr(
        device, "idle_threads_sleep", lambda: monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    )
    device.busy_threads_sleep()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    assert os.environ.get("GOMP_SPINCOUNT") == given.get("GOMP_SPINCOUNT")


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="needs /proc")
def test_a_busy_process_is_among_the_runnable_tasks() -> None:
    """Five processes that only count: as many more tasks, on any number of cores."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(5)]
    try:
        deadline = time.monotonic() + 30
        while (found := device.runnable_tasks() or 0) < 6 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert found >= 6


def test_a_run_decides_before_torch_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys, elrea.commands.run as run\n"
        "def seen():\n"
        "    print('torch' in sys.modules)\n"
        "    sys.exit()\n"
        "run.busy_threads_sleep = seen\n"
        "run.main([])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["False"], done
