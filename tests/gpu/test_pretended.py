"""Runs `pretended_cases.py` in a process of its own.

PyTorch makes its queues of backward passes at the first one of a process, for the devices that it has then. A pretended
GPU that is made later, after other tests, has none.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cli.commands import ROOT

CASES = "tests/gpu/pretended_cases.py"


def test_all_work_on_a_pretended_gpu_equals_the_cpus() -> None:
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", CASES],
        cwd=ROOT, env=alone, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert " passed" in ended.stdout
