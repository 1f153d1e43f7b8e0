"""Writes the leaderboard: what each method scores above the best tuned single adapter, column by column.

    python -m experiments.leaderboard.board --commit <of the runs> --into experiments/leaderboard \
        --column 200 multirun/rates_200 multirun/test_200 --column 500 multirun/rates_500 multirun/test_500

A column is one amount of training data. Its first sweep was scored on dev at several rates; each row takes the rate
that is best there (`experiments.fair_table.rates`). The single adapter that is best there is what the column's methods
are held against. Its second sweep was scored on test at those rates. Differences are in points, paired, with 95 %
intervals over seeds and questions at once. Writes <column>.json for each column, and table.md with these columns and
those whose JSON file is in the folder already.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import ConfigError, DataError
from elrea.reporting.compare_table import (
    Comparison,
    Row,
    command_line,
    compare,
    load,
    read_sweep,
    save,
)
from elrea.store.files import write_text
from experiments.fair_table import rates

SINGLE = (
    "compute_matched", "compute_matched_passes", "parameter_matched", "parameter_matched_rslora", "balanced",
    "projected", "tagged",
)  # fmt: skip
"""Rows with one adapter for all prompts, as many steps, passes or parameters as the experts."""
OF_A_SPLIT = (
    "seed",
    "data.seed",
    "data.train_seed",
    "data.test_per_board",
    "evaluation.split",
    "evaluation.settings",
)
"""Keys in which a column's sweeps on dev and on test differ, beside those of `rates.FREE`."""


@dataclass(frozen=True)
class Column:
    """One size of the data.

    Attributes:
        name: Heading.
        table: On test, each row less the best single adapter; its `details` have the next two.
    """

    name: str
    table: Comparison

    @property
    def dev(self) -> Mapping[str, Mapping[str, float]]:
        """Accuracy on dev by row and rate."""
        found: dict[str, dict[str, float]] = self.table.details["dev"]
        return found

    @property
    def commit(self) -> str:
        """Of the code that the runs were made with."""
        return str(self.table.details["commit"])

    @property
    def rows(self) -> dict[str, Row]:
        """By strategy."""
        return {row.strategy: row for row in self.table.rows}


def column(name: str, dev: Sequence[Path], test: Path, commit: str) -> Column:
    """Reads one column from its two sweeps.

    Raises:
        ElreaError: A sweep is unfinished or scored on the wrong questions; dev has no single adapter; or the runs on
            test vary more than the seed, were trained in another way than those on dev, or have rows or rates that dev
            did not choose.
    """
    found = rates.merged(dev)
    singles = {row: max(found[row].values()) for row in SINGLE if row in found}
    if not singles:
        raise ConfigError(f"{dev[0]}: no single adapter; score one of {', '.join(SINGLE)}")
    best = max(singles, key=singles.__getitem__)
    keys, scores, jobs = read_sweep(test, [best], several=True)
    if keys:
        raise ConfigError(f"{test}: varies {', '.join(keys)}; a column has one setting, and seeds")
    if unrated := sorted(scores[0].items.keys() - {*found, *rates.WITHOUT}):
        raise ConfigError(f"{test}: has {unrated[0]}, for which dev has chosen no rate in {dev[0]}")
    typed = rates.overrides_of(jobs) ^ rates.read(dev[0])[1]
    if differ := {word for word in typed if word.partition("=")[0] not in OF_A_SPLIT}:
        raise ConfigError(f"{test} and {dev[0]} differ in {', '.join(sorted(differ))}")
    chosen = rates.words(found)
    for job in jobs:
        if "evaluation.split=dev" in job["words"]:
            raise ConfigError(f"{test}: was scored on dev; the board needs runs on test")
        if chosen.replace(" ", "") not in job["words"]:  # Hydra leaves out the spaces
            raise ConfigError(
                f"{test}/{job['number']}: other rates than dev chose in {dev[0]}; run it with\n{chosen!r}"
            )
    table = compare(scores, command=command_line(), data=jobs[0]["data"], baseline=best)
    details = {"commit": commit, "dev": found}
    return Column(name, table.model_copy(update={"details": details}))


def kept(path: Path) -> Column:
    """A column that was written before.

    Raises:
        ElreaError: The file is not one of this script's.
    """
    table = load(path)
    if missing := {"commit", "dev"} - table.details.keys():
        raise DataError(f"{path}: is no column of a leaderboard: details has no {min(missing)}")
    return Column(path.stem, table)


def page(columns: Sequence[Column]) -> str:
    """The board as Markdown: the methods by the mean of their differences, what they are held against, and the rates.

    Raises:
        DataError: The columns have different rows.
    """
    names = list(columns[0].rows)
    if any(set(each.rows) != set(names) for each in columns):
        raise DataError("the columns have different rows; make them by the same commands")
    gains = {name: sum(_gain(each.rows[name]) for each in columns) / len(columns) for name in names}
    heads = [each.name for each in columns]
    lines = [
        f"| row | passes | {' | '.join(heads)} | ahead, level, behind |",
        "|---" * (3 + len(heads)) + "|",
    ]
    for name in sorted(names, key=lambda name: -gains[name]):
        rows = [each.rows[name] for each in columns]
        passes = "-" if rows[0].passes is None else f"{rows[0].passes:g}"
        cells = " | ".join(map(_cell, rows))
        lines.append(f"| `{name}` | {passes} | {cells} | {_counted(rows)} |")
    chapters = ["\n".join(lines), "\n".join(_against(columns))]
    for each in columns:
        chapters.append(f"Rates on dev, {each.name}: accuracy in %\n\n{rates.table(each.dev)}")
    for each in columns:
        chapters.append(f"Code of the runs, {each.name}: {each.commit}\n\n    {each.table.command}")
    return "\n\n".join(chapters) + "\n"


def _gain(row: Row) -> float:
    return 0.0 if row.row_minus_baseline is None else row.row_minus_baseline.mean


def _cell(row: Row) -> str:
    found = row.row_minus_baseline
    return f"{100 * row.mean:.1f} %" if found is None else found.points


def _counted(rows: Sequence[Row]) -> str:
    """Columns in which the whole interval is above 0, holds it, and is below it."""
    bounds = [row.row_minus_baseline.widest for row in rows if row.row_minus_baseline]
    ahead = sum(low > 0 for low, _ in bounds)
    behind = sum(high < 0 for _, high in bounds)
    return f"{ahead}, {len(bounds) - ahead - behind}, {behind}"


def _against(columns: Sequence[Column]) -> list[str]:
    lines = [
        "| column | best single adapter on dev | its accuracy on test, % | questions | seeds |",
        "|---|---|---|---|---|",
    ]
    for each in columns:
        row = each.rows[each.table.baseline or ""]
        cells = [each.name, f"`{row.strategy}`", f"{100 * row.mean:.1f}", f"{row.items:,}"]
        lines.append(f"| {' | '.join([*cells, ', '.join(map(str, row.seeds))])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--column", nargs=3, action="append", required=True, metavar=("NAME", "DEV", "TEST"),
        help="heading; sweep over evaluation.rate on dev, or several with commas; sweep over seeds on test",
    )  # fmt: skip
    parser.add_argument(
        "--commit", required=True, help="of the code that these columns' runs were made with"
    )
    parser.add_argument(
        "--into", type=Path, required=True, help="folder for table.md and the JSON files"
    )
    given = parser.parse_args()
    new = {
        name: column(name, [Path(each) for each in dev.split(",")], Path(test), given.commit)
        for name, dev, test in given.column
    }
    old = {path.stem: kept(path) for path in given.into.glob("*.json") if path.stem not in new}
    text = page([each for _, each in sorted((old | new).items())])
    print(text)
    given.into.mkdir(parents=True, exist_ok=True)
    for name, each in new.items():
        save(each.table, given.into / f"{name}.json")
    write_text(given.into / "table.md", text)


if __name__ == "__main__":
    with one_line_errors():
        main()
