"""Counts the rows that a source leaves out, or keeps in test although they cannot be scored, with the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

SHOWN = 20
"""Places that one line lists; of more, it gives the number."""


class Drop(NamedTuple):
    """One row that was left out, or kept although it cannot be scored."""

    source: str
    fate: str
    reason: str
    where: str
    kept_as: str


class Drops:
    """A list of `Drop`, in the order in which they were added."""

    def __init__(self, rows: Collection[Drop] = ()) -> None:
        self._rows = list(rows)

    def add(self, source: str, fate: str, reason: str, where: str, kept_as: str = "") -> None:
        """Add one row.

        Args:
            source: name of the data set, "mathqa".
            fate: "dropped from train", or "in test, scored wrong".
            reason: "no number in the answer".
            where: "mathqa/dev.json, entry 12". An absolute path is cut to its last two parts, so that results do not
                depend on the machine.
            kept_as: the example's id if the row was kept.
        """
        if where.startswith("/"):
            where = "/".join(where.split("/")[-2:])
        self._rows.append(Drop(source, fate, reason, where, kept_as))

    def update(self, other: Drops) -> None:
        """Add all rows of another list."""
        self._rows += other._rows

    def renamed(self, source: str, new_id: Callable[[str], str]) -> Drops:
        """A copy with `source` as the source of every row and `new_id(id)` as the id of every kept example."""
        return Drops(
            [
                row._replace(source=source, kept_as=row.kept_as and new_id(row.kept_as))
                for row in self._rows
            ]
        )

    def among(self, ids: Collection[str]) -> Drops:
        """A copy without kept rows whose example is not in `ids`, because a limit removed it from test."""
        return Drops([row for row in self._rows if not row.kept_as or row.kept_as in ids])

    def lines(self) -> Iterator[str]:
        """One line for each source, fate and reason: "mathqa: 12 dropped from train: no number in the answer (…)"."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for row in self._rows:
            groups.setdefault((row.source, row.fate, row.reason), []).append(row.where)
        for (source, fate, reason), places in groups.items():
            more = f", and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
            shown = "; ".join(places[:SHOWN])
            yield f"{source}: {len(places):,} {fate}: {reason} ({shown}{more})"

    def summary(self) -> str:
        """The number of rows by fate: "17 dropped from train"; empty if there are none."""
        counts = Counter(row.fate for row in self._rows)
        return ", ".join(f"{n:,} {fate}" for fate, n in counts.items())

    def __len__(self) -> int:
        return len(self._rows)
