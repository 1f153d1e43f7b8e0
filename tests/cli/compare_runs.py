"""Folders of finished runs for the tests of `elrea compare`, and its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elrea.commands import compare
from elrea.commands.exit import one_line_errors
from elrea.errors import ElreaError
from elrea.reporting.runs import read_run
from tests.experiments.sweeps import SCORE, write_job

N = 40
DRAW = np.random.default_rng(0)
BASE = {seed: DRAW.random(N) < 0.5 for seed in (0, 1, 2)}
BETTER = {seed: right | (DRAW.random(N) < 0.3) for seed, right in BASE.items()}


def write_run(
    folder: Path,
    seed: int,
    strategies: dict[str, Any],
    answer: str = "A",
    turned: bool = False,
    chosen: str = "elrea",
    **config: Any,
) -> Path:
    """Writes the files of a finished run: predictions, summary, status and config."""
    rows = [
        {
            "id": f"item/{i}",
            "answer": answer,
            "source": f"source-{i}",
            "strategies": {name: {"correct": bool(c[i])} for name, c in strategies.items()},
        }
        for i in range(N)
    ]
    summary = {"strategies": dict.fromkeys(strategies, SCORE)}
    write_job(folder.parent, seed, rows[::-1] if turned else rows, summary).rename(folder)
    settings = {"seed": seed, "clustering": {"k": 4, "sizes": [1, 2]}, "ensemble": {}, **config}
    (folder / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    rewrite(folder / "status.json", chosen=chosen)
    return folder


def rewrite(path: Path, **more: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def write_seeds(root: Path) -> Path:
    """A sweep over seeds; the second job has its items in another order."""
    for seed in BASE:
        both = {"base": BASE[seed], "elrea": BETTER[seed]}
        write_run(root / "sweep" / str(seed), seed, both, turned=seed == 1)
    return root / "sweep"


def output(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """What the command prints, or the line of its error."""
    try:
        with one_line_errors():
            compare.main([*map(str, words)])
    except SystemExit as end:
        assert end.code == 1
        return capsys.readouterr().err.removeprefix("error: ")
    return capsys.readouterr().out


def error_of(*runs: Path, a: str = "elrea", b: str = "base") -> str:
    with pytest.raises(ElreaError) as caught:
        compare.compare([read_run(run) for run in runs], a, b, 100)
    return str(caught.value)
