"""`--threads` of the commands on a finished run, and what the entry does before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import arguments, chat, merge, neighbours, predict
from elrea.errors import ConfigError
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
