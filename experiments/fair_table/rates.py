"""Chooses every row's rate from a sweep over `evaluation.rate` that was scored on dev.

    python -m experiments.fair_table.rates multirun/<day>/<time>            # the table, the chosen rates in bold
    python -m experiments.fair_table.rates multirun/<day>/<time> --words    # the override for the runs on test alone

A row takes the rate at which it has the most dev questions right, the mean over seeds; of equal ones the lowest. All
rows had the same rates to choose from, and as many runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from elrea.commands.messages import one_line_errors
from elrea.errors import ConfigError
from elrea.reporting.compare_table import read_sweep

KEY = "evaluation.rate"
WITHOUT = ("backbone", "base")
"""Rows without a rate of their own."""


def accuracies(folder: Path) -> dict[str, dict[str, float]]:
    """Share of dev questions that each row has right at each rate, as it was typed; the lowest rate first.

    Raises:
        ElreaError: The sweep is not finished, varies anything but rate and seed, or was scored on test.
    """
    keys, scores, jobs = read_sweep(folder, several=True)
    if keys != [KEY]:
        raise ConfigError(f"{folder}: varies {', '.join(keys) or 'no setting'}; sweep {KEY} alone")
    if any("evaluation.split=dev" not in job["words"] for job in jobs):
        raise ConfigError(
            f"{folder}: was scored on test; choose rates on dev, with evaluation.split=dev"
        )
    scores.sort(key=lambda each: float(each.setting[0]))
    rows = dict.fromkeys(name for each in scores for name in each.items)
    return {
        row: {each.setting[0]: float(each.items[row].mean()) for each in scores} for row in rows
    }


def best(found: Mapping[str, float]) -> str:
    """The rate of the highest accuracy; of equal ones the first."""
    return max(found, key=found.__getitem__)


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Accuracies in % as Markdown, each row's best in bold."""
    rates = list(next(iter(found.values())))
    lines = [f"| row | {' | '.join(rates)} |", "|---" * (1 + len(rates)) + "|"]
    for row, each in found.items():
        shown = [f"{100 * each[rate]:.1f}" for rate in rates]
        if row not in WITHOUT:
            place = rates.index(best(each))
            shown[place] = f"**{shown[place]}**"
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines)


def words(found: Mapping[str, Mapping[str, float]]) -> str:
    """The override that gives each row its best rate."""
    own = ", ".join(
        f"{row}: {{rate: {best(each)}}}" for row, each in found.items() if row not in WITHOUT
    )
    return f"evaluation.settings={{{own}}}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a finished sweep over evaluation.rate on dev")
    parser.add_argument("--words", action="store_true", help="print the override alone")
    given = parser.parse_args()
    found = accuracies(given.folder)
    print(words(found) if given.words else f"{table(found)}\n\n{words(found)}")


if __name__ == "__main__":
    with one_line_errors():
        main()
