"""How a fuzzer ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn


def conclude(path: Path, facts: dict[str, Any], rows: dict[str, dict[str, Any]]) -> NoReturn:
    """Writes what was tried, says it, and ends with 1 where a reader crashed.

    Args:
        path: Of the JSON.
        facts: `minutes`, and what else there is to say of all readers together.
        rows: By reader `tried`, `failed` and what else there is.
    """
    tried, failed = sum(row["tried"] for row in rows.values()), sum(row["failed"] for row in rows.values())  # fmt: skip
    path.write_text(json.dumps({**facts, "tried": tried, "readers": rows}, indent=1) + "\n")
    print(f"{tried:,} files in {facts['minutes']:g} minutes, {failed} of {len(rows)} readers crashed")  # fmt: skip
    sys.exit(1 if failed else 0)
