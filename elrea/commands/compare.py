"""Tests whether one strategy is better than another, over the same test items and over seeds.

    python -m elrea.evaluation.compare multirun/<day>/<time> --a elrea --b base
    python -m elrea.evaluation.compare outputs/<day>/<time> outputs/<day>/<time> --a elrea --b uniform --json

Finished runs that differ in the seed alone, or the folder of a sweep over seeds; which strategies they scored, and
where and how fast they were made, may differ too. Each seed has its accuracies and McNemar's exact test. All together
have the paired bootstrap interval of the difference, where an item counts with its mean over seeds, and McNemar's test
in this form: of the items on which the strategies' means over seeds differ, is one strategy ahead on more? With one
seed it is the usual test. The seeds' discordant pairs are not added up: a question that is hard for one seed is hard
for the others, so that they are no independent draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from elrea.commands.messages import told
from elrea.errors import ConfigError, DataError, did_you_mean
from elrea.evaluation.statistics import MOST_RESAMPLES, McNemar, mcnemar, paired_interval
from elrea.reporting.runs import Answers, check_alike, folders, read_run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs or of a sweep")
    parser.add_argument("--a", required=True, help="a strategy, as elrea")
    parser.add_argument("--b", required=True, help="the strategy that it is compared with, as base")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap (10,000)")
    given = parser.parse_args()
    if not 1 <= given.resamples <= MOST_RESAMPLES:
        raise ConfigError(f"--resamples {given.resamples}: must be 1 to {MOST_RESAMPLES}")
    found = compare(
        [read_run(folder) for folder in folders(given.runs)], given.a, given.b, given.resamples
    )
    if given.json:
        print(json.dumps(found, indent=2))
        return
    from elrea.reporting.progress import screen
    from elrea.reporting.terminal import paired_table

    screen().print(paired_table(found))


def compare(runs: Sequence[Answers], a: str, b: str, resamples: int = 10_000) -> dict[str, Any]:
    """Accuracies, differences and tests, per seed and pooled.

    Args:
        runs: Of one or several seeds.
        a: A strategy.
        b: Another one; the difference is a's accuracy less b's.
        resamples: Of the bootstrap.

    Returns:
        `a`, `b`, `items`, `seeds` (rows of `seed`, `a`, `b`, `difference`, `ci95`, `only_a`, `only_b`, `p`) and
        `pooled`, such a row without the seed.

    Raises:
        DataError: The runs have other test items or other settings, or one seed's runs disagree.
        ConfigError: A strategy was not scored.
    """
    for run in runs[1:]:
        if run.items != runs[0].items:
            raise DataError(
                f"{run.folder} and {runs[0].folder} have other test items ({len(run.items):,} and "
                f"{len(runs[0].items):,}); name runs on the same data"
            )
    check_alike(runs, (a, b))
    seeds = sorted({run.seed for run in runs})
    left, right = (
        np.array([_of_seed([run for run in runs if run.seed == seed], name) for seed in seeds])
        for name in (a, b)
    )
    rows = [
        {"seed": seed, **_figures(one[None], other[None], mcnemar(one, other), resamples)}
        for seed, one, other in zip(seeds, left, right, strict=True)
    ]
    # Sums of whole numbers, so that equal means are equal.
    ahead = left.sum(axis=0, dtype=int) - right.sum(axis=0, dtype=int)
    pooled = _figures(left, right, mcnemar(ahead > 0, ahead < 0), resamples)
    return {"a": a, "b": b, "items": len(runs[0].items), "seeds": rows, "pooled": pooled}


def _figures(left: Any, right: Any, test: McNemar, resamples: int) -> dict[str, Any]:
    one, other = float(left.mean()), float(right.mean())
    bounds = paired_interval(left, right, seed=0, resamples=resamples)
    figures = {"a": one, "b": other, "difference": one - other}
    rounded = {name: round(value, 6) for name, value in figures.items()}
    return {**rounded, "ci95": [round(bound, 6) for bound in bounds], **asdict(test)}


def _of_seed(runs: Sequence[Answers], name: str) -> list[bool]:
    """What a strategy had right with one seed; several runs may have scored it, if they agree."""
    found = [(run.folder, run.correct[name]) for run in runs if name in run.correct]
    if not found:
        there = sorted({strategy for run in runs for strategy in run.correct})
        raise ConfigError(
            f"{runs[0].folder}: no strategy {name!r} with seed {runs[0].seed}{did_you_mean(name, there)} (there is: "
            f"{', '.join(there)})"
        )
    for folder, correct in found[1:]:
        if correct != found[0][1]:
            raise DataError(
                f"{folder} and {found[0][0]} have seed {runs[0].seed} and score {name} differently; name runs that "
                "differ in the seed alone"
            )
    return found[0][1]


if __name__ == "__main__":
    with told():
        main()
