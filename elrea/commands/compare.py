"""Tests whether one strategy is better than another, over test items and over seeds.

    elrea compare multirun/<day>/<time> --a elrea --b base
    elrea compare outputs/<day>/<time> outputs/<day>/<time> --a elrea --b uniform --json

Give finished runs, or folders of sweeps. Runs that differ only in the seed are one setting; each
setting has its own rows, as each number of clusters in a sweep over clustering.k. Runs of one
setting may differ in the strategies that they scored, in the hardware and in settings of speed.

Each seed gets the two accuracies, the paired bootstrap interval of their difference over items, and
McNemar's exact test. All seeds of a setting together get three intervals, each with its p-value:

  items   other questions, these trained models: paired bootstrap over items, in which an item
          counts with its mean over seeds; and McNemar's test over the items on which the
          strategies' means over seeds differ
  seeds   other seeds, these questions: Student's t over the seeds' differences
  both    other seeds and other questions: bootstrap over seeds and items at once

The discordant pairs of the seeds are not added up, because a question that is hard with one seed is
hard with the others: they are not independent draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from elrea.commands.config_files import config_folder
from elrea.commands.exit import one_line_errors
from elrea.commands.parser import Parser
from elrea.config import leaves
from elrea.errors import ConfigError, DataError, did_you_mean
from elrea.evaluation.seed_intervals import (
    seeds_interval,
    seeds_items_interval,
    seeds_items_p,
    seeds_p,
)
from elrea.evaluation.statistics import MOST_RESAMPLES, McNemar, mcnemar, paired_interval
from elrea.reporting.runs import FinishedRun, read_run, run_folders
from elrea.reporting.settings import by_setting


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    parser = Parser(
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
    folders, left_out = run_folders(given.runs)
    runs = [read_run(folder) for folder in folders]
    comparison = compare(runs, given.a, given.b, given.resamples) | {"left_out": left_out}
    if given.json:
        print(json.dumps(comparison, indent=2))
        return
    from elrea.reporting.compare_terminal import legend, paired_table
    from elrea.reporting.progress import say, screen
    from elrea.reporting.terminal import wrapped

    out = screen()
    out.print(paired_table(comparison))
    for line in (*legend(comparison), *left_out):
        say(out, wrapped(line))


def compare(runs: Sequence[FinishedRun], a: str, b: str, resamples: int = 10_000) -> dict[str, Any]:
    """Accuracies, differences and tests of two strategies, setting by setting.

    Args:
        runs: Of one or several settings and seeds.
        a: Name of a strategy.
        b: Name of another one; the difference is a's accuracy minus b's.
        resamples: Number of bootstrap resamples.

    Returns:
        `a`, `b`, `data`, and `settings`, one for each group of runs that differ only in the seed: `setting` (what tells
        it from the others: key -> value), `items`, `seeds` (rows of `seed`, `a`, `b`, `difference`, `ci95`, `only_a`,
        `only_b`, `p`) and `pooled`: such a row without the seed, whose `ci95` and `p` are over items, with `over_seeds`
        and `over_seeds_and_items`, each a `ci95` and a `p`, or None with one seed. With one setting, its `items`,
        `seeds` and `pooled` are at the top level too.

    Raises:
        DataError: Runs of one setting differ in their test items, or two with one seed disagree.
        ConfigError: A strategy was not scored.
    """
    settings = [
        {"setting": dict(group.setting), **_compare(group.runs, a, b, resamples)}
        for group in by_setting(runs, (a, b), _own_file)
    ]
    alone = {key: settings[0][key] for key in ("items", "seeds", "pooled")}
    return {
        "a": a,
        "b": b,
        "data": list(dict.fromkeys(run.data for run in runs if run.data)),
        "settings": settings,
        **(alone if len(settings) == 1 else {}),
    }


def _own_file(name: str) -> dict[str, Any]:
    """What a strategy's file sets; empty for a strategy that is none of this project's choices."""
    from elrea.pipeline.choices import strategy_nodes

    try:
        return leaves(strategy_nodes(config_folder(), [name])[name])
    except ConfigError:
        return {}


def _compare(runs: Sequence[FinishedRun], a: str, b: str, resamples: int) -> dict[str, Any]:
    """The figures of one setting."""
    for run in runs[1:]:
        if run.items != runs[0].items:
            raise DataError(
                f"{run.folder} and {runs[0].folder} have different test items ({len(run.items):,} and "
                f"{len(runs[0].items):,}); give runs on the same data"
            )
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
    cells = left.astype(float) - right
    each = cells.mean(axis=1)
    pooled["over_seeds"] = _test(seeds_interval(each), seeds_p(each))
    pooled["over_seeds_and_items"] = _test(
        seeds_items_interval(cells, 0, resamples), seeds_items_p(cells, 0, resamples)
    )
    return {"items": len(runs[0].items), "seeds": rows, "pooled": pooled}


def _test(bounds: tuple[float, float] | None, p: float | None) -> dict[str, Any] | None:
    """An interval with its p-value; None with one seed."""
    return None if bounds is None else {"ci95": [round(bound, 6) for bound in bounds], "p": p}


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
