"""Runs `pretended_cases.py`, and a whole run, on a pretended GPU, each in a process of its own.

PyTorch makes its queues of backward passes at the first one of a process, for the devices that it has then. A pretended
GPU that is made later, after other tests, has none.
"""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import EXAM, QUIET, ROOT, TINY, run_code, run_module

CASES = "tests/gpu/pretended_cases.py"
ALONE = """
import os, sys, pytest
for name in [name for name in os.environ if name.startswith("PYTEST")]:
    del os.environ[name]
os.chdir(sys.argv.pop())
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", *sys.argv[1:]]))
"""


def test_all_work_on_a_pretended_gpu_equals_the_cpus(tmp_path: Path) -> None:
    ended = run_code(tmp_path, ALONE, CASES, str(ROOT))
    assert ended.code == 0, ended.out[-4000:]
    assert " passed" in ended.out


def test_a_whole_run(tmp_path: Path, small_model: Path) -> None:
    """`run.py` as a user starts it: the device is found, the backbone is bfloat16."""
    words = [word for word in TINY if not word.startswith("trainer.accelerator")]
    done = run_module(
        tmp_path, "tests.gpu.whole_run", "+experiment=elrea_mmlu", *words, *EXAM, QUIET,
        f"backbone.name={small_model}", "training.epochs=1", "evaluation.strategies=[elrea_top1,moe_merging]",
    )  # fmt: skip
    assert done.code == 0, done.err[-2000:]
    assert done.summary["stages"]["scores"]
    assert done.out.splitlines()[-1] == "cuda torch.bfloat16"
