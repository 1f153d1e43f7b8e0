"""What of a source was left out, or cannot be scored, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

SHOWN = 20
"""Places that a line names: all of them, unless a file is of another kind than was thought."""


class Unparsed(Exception):
    """A row whose answer cannot be read; `args[0]` says why. Sources catch it and count it."""


class Drops:
    """Counts by source, what became of the rows, and why; in the order of their first one."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}

    def add(self, source: str, fate: str, reason: str, where: str, kept_as: str = "") -> None:
        """Note one row.

        Args:
            source: the dataset, "mathqa".
            fate: "dropped from train", or "in test, scored wrong".
            reason: "no number in the answer".
            where: "mathqa/dev.json, entry 12"; of a path, its last two parts: results travel.
            kept_as: the example's id, where the row was not dropped.
        """
        if where.startswith("/"):
            where = "/".join(where.split("/")[-2:])
        self._found.setdefault((source, fate, reason), []).append((where, kept_as))

    def update(self, other: Drops) -> None:
        """Take over what another one counted."""
        for key, places in other._found.items():
            self._found.setdefault(key, []).extend(places)

    def renamed(self, source: str, named: Callable[[str], str]) -> Drops:
        """The same under one source's name, what a mix calls it, and with ids as `named` makes them."""
        made = Drops()
        for (_, fate, reason), places in self._found.items():
            for where, kept_as in places:
                made.add(source, fate, reason, where, kept_as and named(kept_as))
        return made

    def among(self, ids: Collection[str]) -> Drops:
        """The same without rows that were kept at first and are none of these examples: a limit left them out."""
        made = Drops()
        for (source, fate, reason), places in self._found.items():
            for where, kept_as in places:
                if not kept_as or kept_as in ids:
                    made.add(source, fate, reason, where, kept_as)
        return made

    def lines(self) -> Iterator[str]:
        """One line for each reason: "mathqa: 12 dropped from train: no number in the answer (…)"."""
        for (source, fate, reason), places in self._found.items():
            more = f", and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
            shown = "; ".join(where for where, _ in places[:SHOWN])
            yield f"{source}: {len(places):,} {fate}: {reason} ({shown}{more})"

    def summed(self) -> str:
        """All fates with their counts, for a note: "17 dropped from train"; empty where none was."""
        counts: dict[str, int] = {}
        for (_, fate, _), places in self._found.items():
            counts[fate] = counts.get(fate, 0) + len(places)
        return ", ".join(f"{n:,} {fate}" for fate, n in counts.items())

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))
