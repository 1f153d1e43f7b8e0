"""A training process killed by SIGKILL in the middle of an epoch, then resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elrea.models.adapter_shape import Lora
from elrea.models.training.checkpoint import latest
from tests.models.builders import contents, train

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys, torch
from pathlib import Path
from elrea.models.log import OnlyProgress
from elrea.models.adapter_shape import Lora
from tests.models.builders import train
torch.set_num_threads(1)
steps = []
def count(examples):
    steps.append(examples)
    if len(steps) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train(Path(sys.argv[1]), lora=Lora(r=2, dropout=0.2), checkpoint_minutes=1e-9, task=OnlyProgress(count))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_and_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    killed = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(broken)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
        stderr=subprocess.PIPE,
    )
    train(whole, lora=Lora(r=2, dropout=0.2))  # at the same time
    _, errors = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, errors.decode()
    found = latest(broken / "checkpoint")
    assert found is not None and len(found.progress["curve"]) == 5  # epochs end at 3, 6 and 9
    assert not (broken / "adapter").exists()
    train(broken, lora=Lora(r=2, dropout=0.2))
    assert contents(broken) == contents(whole)
