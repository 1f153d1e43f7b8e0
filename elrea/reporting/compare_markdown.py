"""Writes a comparison of strategies (`compare_table.Comparison`) as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elrea.evaluation.seed_intervals import Interval
    from elrea.reporting.compare_table import Comparison, Difference, Measure

MOST_SEEDS = 5
"""Seeds that have a column each; of more, the least and the greatest are shown."""
INTERVALS = {"items": "items_ci95", "seeds": "seeds_ci95", "both": "seeds_items_ci95"}
"""Intervals of a difference by their name in the table; one that no row has is left out."""
LEGEND = (
    "Intervals are 95 %. items: paired bootstrap over test items, per item the mean over seeds; seeds: Student's t "
    "over the seeds' differences; both: bootstrap over seeds and items at once."
)
"""The meaning of the intervals in `markdown`."""


def page(table: Comparison, extra: Mapping[str, Sequence[str]] | None = None) -> str:
    """A Markdown file with the data, the table, the meaning of its intervals, and the command."""
    legend = [LEGEND] if table.leader or table.baseline else []
    return (
        "\n\n".join([note(table), markdown(table, extra), *legend, f"    {table.command}"]) + "\n"
    )


def markdown(
    table: Comparison, extra: Mapping[str, Sequence[str]] | None = None, digits: int | None = None
) -> str:
    """The rows as a Markdown table: accuracy in %, its differences in points, losses in nats per token.

    Args:
        table: From `compare`.
        extra: By heading, a cell per row; columns that a study adds on the right.
        digits: After the point; None takes 1 for accuracies and 3 for losses.
    """
    seeds = table.rows[0].seeds if table.rows else []
    each = all(row.seeds == seeds for row in table.rows) and len(seeds) <= MOST_SEEDS
    macro = any(row.macro is not None for row in table.rows)
    passes = any(row.passes is not None for row in table.rows)
    show = _Numbers(table.measure, digits)
    shown = [name for name, field in INTERVALS.items() if _any(table, field)]
    intervals = [f"95 %, {name}" for name in shown]
    heads = [*table.settings, "strategy", show.heading, *["macro"] * macro]
    heads += [f"seed {seed}" for seed in seeds] if each else ["seeds, least to most"]
    heads += [f"{table.leader} minus it", *intervals] if table.leader else []
    heads += [f"minus {table.baseline}", *intervals] if table.baseline else []
    heads += ["passes"] * passes
    heads += list(extra or {})
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for i, row in enumerate(table.rows):
        cells = [*row.setting.values(), row.strategy, show.plain(row.mean)]
        cells += [show.plain(row.macro)] * macro
        least, most = show.plain(min(row.per_seed)), show.plain(max(row.per_seed))
        cells += [show.plain(x) for x in row.per_seed] if each else [f"{least} to {most}"]
        cells += show.difference(row.leader_minus_row, shown) if table.leader else []
        cells += show.difference(row.row_minus_baseline, shown) if table.baseline else []
        cells += ["-" if row.passes is None else f"{row.passes:.1f}"] * passes
        cells += [column[i] for column in (extra or {}).values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def note(table: Comparison) -> str:
    """Data, number of items and seeds, as a note for tables and plots."""
    sizes = sorted({row.items for row in table.rows})
    seeds = sorted({seed for row in table.rows for seed in row.seeds})
    items = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    return f"{table.data}; {items} test items; seeds {', '.join(map(str, seeds))}"


def _any(table: Comparison, field: str) -> bool:
    both = (found for row in table.rows for found in (row.leader_minus_row, row.row_minus_baseline))
    return any(getattr(found, field) is not None for found in both if found is not None)


class _Numbers:
    """Scores as text."""

    def __init__(self, measure: Measure, digits: int | None) -> None:
        self.scale, usual = (100, 1) if measure == "accuracy" else (1, 3)
        self.digits = usual if digits is None else digits
        self.heading = "accuracy, %" if measure == "accuracy" else "loss, nats per token"

    def plain(self, value: float | None) -> str:
        return "-" if value is None else f"{self.scale * value:.{self.digits}f}"

    def signed(self, value: float) -> str:
        return f"{self.scale * value:+.{self.digits}f}"

    def interval(self, bounds: Interval | None) -> str:
        return "-" if bounds is None else f"[{', '.join(map(self.signed, bounds))}]"

    def difference(self, found: Difference | None, intervals: Sequence[str]) -> list[str]:
        """The mean and its intervals."""
        if found is None:
            return ["-"] * (1 + len(intervals))
        bounds = [getattr(found, INTERVALS[name]) for name in intervals]
        return [self.signed(found.mean), *map(self.interval, bounds)]
