"""Tests whether one strategy is better than another, over the same test items and over seeds.

    elrea compare multirun/<day>/<time> --a elrea --b base
    elrea compare outputs/<day>/<time> outputs/<day>/<time> --a elrea --b uniform --json

Give finished runs that differ only in the seed, or the folder of a sweep over seeds. The runs may
also differ in the strategies that they scored, in the hardware and in settings of speed.

Each seed gets the two accuracies and McNemar's exact test. All seeds together get the paired
bootstrap interval of the difference, in which an item counts with its mean over seeds, and a
McNemar test over the items on which the strategies' means over seeds differ: is one strategy ahead
on more of them? With one seed this is the usual test. The discordant pairs of the seeds are not
added up, because a question that is hard with one seed is hard with the others: they are not
independent draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from elrea.commands.messages import one_line_errors
from elrea.errors import ConfigError, DataError, did_you_mean
from elrea.evaluation.statistics import MOST_RESAMPLES, McNemar, mcnemar, paired_interval
from elrea.reporting.runs import FinishedRun, check_same_settings, read_run, run_folders


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    parser = argparse.ArgumentParser(
        prog="elrea compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, or of a sweep")
    parser.add_argument("--a", required=True, help="name of a strategy, as elrea")
    parser.add_argument("--b", required=True, help="name of the strategy to compare with, as base")
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table (default: a table)"
    )
    parser.add_argument(
        "--resamples", type=int, default=10_000, help="of the bootstrap (default: 10000)"
    )
    given = parser.parse_args(argv)
    if not 1 <= given.resamples <= MOST_RESAMPLES:
        raise ConfigError(f"--resamples {given.resamples}: must be 1 to {MOST_RESAMPLES}")
    comparison = compare(
        [read_run(folder) for folder in run_folders(given.runs)], given.a, given.b, given.resamples
    )
    if given.json:
        print(json.dumps(comparison, indent=2))
        return
    from elrea.reporting.progress import screen
    from elrea.reporting.terminal import paired_table

    screen().print(paired_table(comparison))


def compare(runs: Sequence[FinishedRun], a: str, b: str, resamples: int = 10_000) -> dict[str, Any]:
    """Accuracies, differences and tests of two strategies, per seed and pooled.

    Args:
        runs: Runs of one or several seeds.
        a: Name of a strategy.
        b: Name of another one; the difference is a's accuracy minus b's.
        resamples: Number of bootstrap resamples.

    Returns:
        `a`, `b`, `items`, `seeds` (rows of `seed`, `a`, `b`, `difference`, `ci95`, `only_a`, `only_b`, `p`) and
        `pooled`, such a row without the seed.

    Raises:
        DataError: The runs differ in their test items or settings, or two runs with one seed disagree.
        ConfigError: A strategy was not scored.
    """
    for run in runs[1:]:
        if run.items != runs[0].items:
            raise DataError(
                f"{run.folder} and {runs[0].folder} have different test items ({len(run.items):,} and "
                f"{len(runs[0].items):,}); give runs on the same data"
            )
    check_same_settings(runs, (a, b))
    seeds = sorted({run.seed for run in runs})
    left, right = (
        np.array([_correct([run for run in runs if run.seed == seed], name) for seed in seeds])
        for name in (a, b)
    )
    rows = [
        {"seed": seed, **_figures(one[None], other[None], mcnemar(one, other), resamples)}
        for seed, one, other in zip(seeds, left, right, strict=True)
    ]
    # Sums of integers: floating-point means that should be equal might differ.
    ahead = left.sum(axis=0, dtype=int) - right.sum(axis=0, dtype=int)
    pooled = _figures(left, right, mcnemar(ahead > 0, ahead < 0), resamples)
    return {"a": a, "b": b, "items": len(runs[0].items), "seeds": rows, "pooled": pooled}


def _figures(left: Any, right: Any, test: McNemar, resamples: int) -> dict[str, Any]:
    """A row of the result from what two strategies had right, both [seeds, items], and their test."""
    one, other = float(left.mean()), float(right.mean())
    bounds = paired_interval(left, right, seed=0, resamples=resamples)
    figures = {"a": one, "b": other, "difference": one - other}
    rounded = {name: round(value, 6) for name, value in figures.items()}
    return {**rounded, "ci95": [round(bound, 6) for bound in bounds], **asdict(test)}


def _correct(runs: Sequence[FinishedRun], name: str) -> list[bool]:
    """Whether a strategy was correct, item by item; runs of one seed that scored it must agree."""
    scored = [(run.folder, run.correct[name]) for run in runs if name in run.correct]
    if not scored:
        there = sorted({strategy for run in runs for strategy in run.correct})
        raise ConfigError(
            f"{runs[0].folder}: no strategy {name!r} with seed {runs[0].seed}{did_you_mean(name, there)} (there is: "
            f"{', '.join(there)})"
        )
    for folder, correct in scored[1:]:
        if correct != scored[0][1]:
            raise DataError(
                f"{folder} and {scored[0][0]} have seed {runs[0].seed} and score {name} differently; give runs that "
                "differ only in the seed"
            )
    return scored[0][1]


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
