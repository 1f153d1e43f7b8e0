"""Prints one table of several forms of the exam from the `results.json` that experiments/study.py wrote for each.

    python -m experiments.fair_table.table experiments/fair_table/standard experiments/fair_table/blended

A row's accuracy in %, and the leader's less the row's in points, with its 95 % interval over seeds and items at once
(with one seed: over items).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.reporting.compare_table import Comparison, Row, load

RESULTS = "results.json"


def table(forms: Sequence[Comparison], names: Sequence[str]) -> str:
    """The rows of the first form, with two columns per form, as Markdown.

    Args:
        forms: Tables of the same rows and the same leader.
        names: Headings of the forms.

    Raises:
        DataError: They have other rows or no leader.
    """
    first = forms[0]
    rows = [{row.strategy: row for row in form.rows} for form in forms]
    if any(
        each.keys() != rows[0].keys() or form.leader is None
        for each, form in zip(rows, forms, strict=True)
    ):
        raise DataError(
            "the forms' tables have different rows, or no leader; make them by the same commands"
        )
    heads = [f"{name}: accuracy, % | {first.leader} minus it [95 %, both]" for name in names]
    lines = [f"| row | {' | '.join(heads)} |", "|---" * (1 + 2 * len(forms)) + "|"]
    for strategy in rows[0]:
        cells = [cell for each in rows for cell in _cells(each[strategy])]
        lines.append(f"| `{strategy}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    """A row's accuracy, and the leader's less its own."""
    shown = f"{100 * row.mean:.1f}"
    return [shown, "-" if row.leader_minus_row is None else row.leader_minus_row.points]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", help="one for each form, with results.json"
    )
    given = parser.parse_args()
    names = [folder.name for folder in given.folders]
    print(table([load(folder / RESULTS) for folder in given.folders], names))


if __name__ == "__main__":
    with one_line_errors():
        main()
