"""Writes the table and the plots of a study from the folder of its sweep.

    python experiments/study.py multirun/<day>/<time> --into experiments/cluster_count
    python experiments/study.py multirun/<day>/<time> --into experiments/conflict --against compute_matched
    python experiments/study.py multirun/<day>/<time> --into experiments/first_results --chance 0.25

The table (`elrea.reporting.compare_table`) has every strategy in every setting of the sweep, and what the leader, ELREA
by default, scores above each. Writes table.md, results.json and the sweep's own plots; with `--against` also a plot of
the gain of ELREA and of its top-1 on that strategy.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import ConfigError
from elrea.reporting.compare_markdown import note, page
from elrea.reporting.compare_table import (
    Scores,
    command_line,
    compare,
    difference,
    read_sweep,
    save,
)
from elrea.reporting.plots import trends
from elrea.reporting.sweep_report import draw_sweep, row_keys, seed_means, with_answers
from elrea.store.files import write_text

LEADER = "elrea"
GAINS = ("elrea", "elrea_top1")
"""Strategies whose gain is drawn with `--against`."""


def draw_gains(
    keys: Sequence[str], scores: Sequence[Scores], against: str, path: Path, small_print: str
) -> None:
    """Draws the gain on a strategy over the values of the first key, with a line per value of the other keys."""
    lines: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    for each in scores:
        others = [f"{key}={value}" for key, value in zip(keys[1:], each.setting[1:], strict=True)]
        for name in GAINS:
            gain = difference(each.items[name], each.items[against])
            point = (float(each.setting[0]), gain.mean, *gain.items_ci95)
            lines[", ".join([name, *others])].append(point)
    trends.trend(lines, keys[0], path, gain_on=against, note=small_print)


def check_numbers(keys: Sequence[str], scores: Sequence[Scores]) -> None:
    """Refuses `--against` unless the first key of the sweep has numbers as values.

    Raises:
        ConfigError: The sweep varies nothing but the seed, or a value is not a number.
    """
    if not keys:
        raise ConfigError("--against: the sweep varies nothing but the seed; leave it out")
    for each in scores:
        try:
            float(each.setting[0])
        except ValueError:
            raise ConfigError(
                f"--against needs numbers on its axis, and {keys[0]}={each.setting[0]} is not one; leave it out"
            ) from None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a finished sweep")
    parser.add_argument("--into", type=Path, required=True, help="folder for table and plots")
    parser.add_argument("--leader", default=LEADER, help=f"compared with each row ({LEADER})")
    parser.add_argument("--against", help="draw ELREA's gain on this strategy")
    parser.add_argument("--chance", type=float, help="accuracy of guessing, to mark in the plot")
    given = parser.parse_args()
    need = [given.leader, *GAINS, given.against] if given.against else [given.leader]
    keys, scores, jobs = read_sweep(given.folder, need, several=True)
    if given.against:
        check_numbers(keys, scores)
    table = compare(
        scores, command=command_line(), data=jobs[0]["data"], settings=keys, leader=given.leader
    )
    text = page(table)
    print(text)
    given.into.mkdir(parents=True, exist_ok=True)
    write_text(given.into / "table.md", text)
    save(table, given.into / "results.json")
    means = seed_means(with_answers(given.folder, jobs))
    draw_sweep(means, row_keys(jobs), given.into, note(table), given.chance)
    if given.against:
        path = given.into / f"gain_on_{given.against}.png"
        draw_gains(keys, scores, given.against, path, note(table))


if __name__ == "__main__":
    with one_line_errors():
        main()
