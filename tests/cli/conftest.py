"""What the tests of the command line share: the words of a small run, and one whole run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import EXAM, LIMIT, ROOT, TINY, Ended, run

SECRET = "0123456789abcdef0123456789abcdef01234567"
"""A key that the whole run finds in its environment."""


@pytest.fixture(scope="session")
def tiny(small_model: Path) -> list[str]:
    """Words of a run of seconds; the data is still to be chosen."""
    return [*TINY, f"backbone.name={small_model}"]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole run; its store is `home / "store"`."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def words(tiny: list[str], home: Path) -> list[str]:
    """The whole run's words."""
    return ["+experiment=elrea_mmlu", *tiny, *EXAM, f"store={home / 'store'}"]


@pytest.fixture(scope="session")
def whole(home: Path, words: list[str]) -> Ended:
    """`python run.py +experiment=elrea_mmlu ...` from start to end, as a user starts it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words],
        cwd=home,
        env={
            **os.environ,
            "WANDB_CONFIG_DIR": str(home / "w"),
            "WANDB_CACHE_DIR": str(home / "w"),
            "WANDB_API_KEY": SECRET,
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return Ended(0, done.stdout, done.stderr, home)


@pytest.fixture(scope="session")
def compared(whole: Ended, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep over two numbers of clusters, the first of which the whole run had, with W&B."""
    assert whole.code == 0
    strategies = "evaluation.strategies=[backbone,base,elrea,elrea_top1,random_cluster,uniform]"
    folder = tmp_path_factory.mktemp("compared")
    ended = run(folder, "-m", *words, "clustering.k=2,3", strategies, plots=True)
    assert (ended.code, ended.err) == (0, "")
    (found,) = folder.glob("multirun/*/*")
    return found
