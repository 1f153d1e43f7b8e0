"""Rows of data=jsonl in train, dev and test, which `make run-real` writes as files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elrea.store.files import write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """Rows of data=jsonl.

    Attributes:
        splits: Split -> its rows.
        lines: What to tell the user about them.
    """

    splits: dict[str, list[Row]]
    lines: tuple[str, ...]

    def write(self, folder: Path) -> dict[str, Path]:
        """Writes a file per split, train.jsonl and so on, each at once.

        Raises:
            StoreError: A file cannot be written.
        """
        paths = {name: folder / f"{name}.jsonl" for name in self.splits}
        for name, rows in self.splits.items():
            write_text(paths[name], "".join(json.dumps(row) + "\n" for row in rows))
        return paths


def counted(what: str, splits: dict[str, list[Row]]) -> str:
    """One line with the number of rows of each split and source."""
    train, test = (Counter(row["source"] for row in splits[name]) for name in ("train", "test"))
    each = ", ".join(f"{source} {train[source]}+{test[source]}" for source in train)
    total = f"{sum(train.values())} to train, {sum(test.values())} to test"
    return f"{what}: {total} ({each})"
