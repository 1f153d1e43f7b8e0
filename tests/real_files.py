"""Finds the real data and models that some tests need; without them these tests are skipped.

Environment variables name the folders:

- `ELREA_DATA`: a folder with mmlu/, bbh/, gsm8k/, svamp/, math/, mathqa/ and flan_cot/ as they are published, and t0/
  with files of prompt and completion. Without it, ../shared/data beside the checkout is used if it exists.
- `ELREA_MODELS`: a folder with TinyStories-656K/, a model folder of transformers. Without it, ../shared/models.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
CONTENTS = {
    "ELREA_DATA": "mmlu/, gsm8k/, ...",
    "ELREA_MODELS": "TinyStories-656K/",
}


def real_data(place: str) -> Path:
    """A file or folder of the real data, "mmlu"; skips the test if it does not exist."""
    return _find("ELREA_DATA", "data", place)


def real_model(name: str) -> Path:
    """The folder of a real model; skips the test if it does not exist."""
    return _find("ELREA_MODELS", "models", name)


def _find(variable: str, default: str, place: str) -> Path:
    path = Path(os.environ.get(variable) or SHARED / default) / place
    if not path.exists():
        pytest.skip(f"no {place}: set {variable}=<folder with {CONTENTS[variable]}> to run it")
    return path


def skipped_tests(reasons: Iterable[str]) -> str:
    """One line for the summary: how many tests each variable would add. Empty if no test was skipped for one.

    Args:
        reasons: why tests were skipped.
    """
    counts = Counter(found[1] for r in reasons if (found := re.search(r": set (\w+)=<folder", r)))
    return ", ".join(
        f"{variable}=<folder with {contents}> would add {n} test{'s' * (n > 1)}"
        for variable, contents in CONTENTS.items()
        if (n := counts[variable])
    )
