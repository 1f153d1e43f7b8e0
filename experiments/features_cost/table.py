"""Writes the table of cheap features against the paper's, from a finished sweep over features.cost and seed.

    python run.py +experiment=features_cost
    python experiments/features_cost/table.py multirun/<day>/<time>

Writes table.md and results.json beside this file. The difference of the costs is paired: the same items and seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import ConfigError
from elrea.reporting.compare_markdown import page
from elrea.reporting.compare_table import (
    Comparison,
    Difference,
    Scores,
    command_line,
    compare,
    difference,
    read_sweep,
    save,
)
from elrea.store.files import write_text

HERE = Path(__file__).parent
KEY = "features.cost"
ROUTED = ("elrea", "elrea_top1")


def costs(keys: Sequence[str], scores: Sequence[Scores], command: str, data: str) -> Comparison:
    """The table, with `cheap_minus_paper` by strategy in its details.

    Raises:
        ConfigError: Other settings than `features.cost` vary, or one of the two costs is missing.
    """
    by_cost = {each.setting: each for each in scores}
    if list(keys) != [KEY] or not {("cheap",), ("paper",)} <= by_cost.keys():
        raise ConfigError(f"the sweep must vary {KEY}=paper,cheap and seed alone, not {list(keys)}")
    cheap, paper = by_cost["cheap",].items, by_cost["paper",].items
    table = compare(scores, command=command, data=data, settings=keys, baseline="base")
    gaps = {name: difference(cheap[name], paper[name]).model_dump() for name in ROUTED}
    return table.model_copy(update={"details": {"cheap_minus_paper": gaps}})


def lines(table: Comparison) -> list[str]:
    """The difference of the costs in points, a line per strategy."""

    def bounds(pair: tuple[float, float] | None) -> str:
        return "-" if pair is None else f"[{100 * pair[0]:+.2f}, {100 * pair[1]:+.2f}]"

    rows = [
        "| cheap minus paper, points | mean | by seed | 95 %, items | 95 %, seeds | 95 %, both |",
        "|---|---|---|---|---|---|",
    ]
    for name, plain in table.details["cheap_minus_paper"].items():
        gap = Difference.model_validate(plain)
        seeds = ", ".join(f"{100 * each:+.2f}" for each in gap.per_seed)
        intervals = (gap.items_ci95, gap.seeds_ci95, gap.seeds_items_ci95)
        cells = [f"{100 * gap.mean:+.2f}", seeds, *map(bounds, intervals)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def write(table: Comparison, into: Path) -> None:
    """Writes table.md and results.json."""
    write_text(into / "table.md", page(table) + "\n" + "\n".join(lines(table)) + "\n")
    save(table, into / "results.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a finished sweep")
    parser.add_argument("--into", type=Path, default=HERE, help="folder for the table")
    given = parser.parse_args()
    keys, scores, jobs = read_sweep(given.folder, ["base", *ROUTED], several=True)
    table = costs(keys, scores, command_line(), jobs[0]["data"])
    write(table, given.into)
    print("\n".join(lines(table)))


if __name__ == "__main__":
    with one_line_errors():
        main()
