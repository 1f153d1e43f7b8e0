"""The table of `elrea compare`: a row per seed, and for all seeds of a setting a row per kind of interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from elrea.reporting.terminal import coloured, interval, percent, plain_table

if TYPE_CHECKING:
    from rich.table import Table


def paired_table(found: Mapping[str, Any]) -> Table:
    """A comparison of two strategies.

    Args:
        found: From `elrea.commands.compare.compare`.

    Returns:
        A Rich table. Every interval and every p-value is followed by what it comes from.
    """
    a, b = found["a"], found["b"]
    table = plain_table(f"{a} minus {b}")
    for key in found["settings"][0]["setting"]:
        table.add_column(key.rpartition(".")[2], overflow="fold")
    table.add_column("seed", justify="right")
    for name in (f"{a} %", f"{b} %", "points"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("over")
    table.add_column("95 % interval", overflow="fold")
    table.add_column("p", overflow="fold")
    for group in found["settings"]:
        values = list(group["setting"].values())
        for row in _rows(group):
            table.add_row(*values, *row)
            values = [""] * len(values)  # named once
    return table


def legend(found: Mapping[str, Any]) -> Iterator[str]:
    """What the table's words mean."""
    a, b = found["a"], found["b"]
    sizes = sorted({group["items"] for group in found["settings"]})
    items = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    yield "; ".join([*found["data"], f"{items} test items"])
    yield (
        "over items: other questions, these models; over seeds: other seeds, these questions; both: other seeds and "
        f"questions. McNemar: exact; in brackets the items right by {a} alone and by {b} alone."
    )


def _rows(group: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Cells of one setting, those of the setting itself left out."""
    for row in group["seeds"]:
        yield [str(row["seed"]), *_accuracies(row), *_over_items(row)]
    pooled = group["pooled"]
    if len(group["seeds"]) < 2:
        return
    yield ["all", *_accuracies(pooled), *_over_items(pooled)]
    for over, name, kind in (
        ("seeds", "over_seeds", "Student's t"),
        ("both", "over_seeds_and_items", "bootstrap"),
    ):
        if test := pooled[name]:
            p = "-" if test["p"] is None else f"{test['p']:.2g}  {kind}"
            yield ["", "", "", "", over, _bounds(test["ci95"], kind), p]


def _accuracies(row: Mapping[str, Any]) -> list[Any]:
    difference = percent(row["difference"], signed=True)
    return [percent(row["a"]), percent(row["b"]), coloured(difference, row["ci95"])]


def _over_items(row: Mapping[str, Any]) -> list[Any]:
    p = f"{row['p']:.2g}  McNemar ({row['only_a']:,} : {row['only_b']:,})"
    return ["items", _bounds(row["ci95"], "bootstrap"), p]


def _bounds(bounds: Any, kind: str) -> Any:
    return coloured(f"{interval(bounds, signed=True)}  {kind}", bounds)
