"""How often an expert that the gate lets in is worse than the base adapter on the test questions of its cluster.

    python experiments/gated/clusters.py outputs/<day>/<time> ...

The runs have the rows `base`, `elrea_one` and `gated`. Prints a line for each run and one for all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.reporting.runs import PREDICTIONS, read_run
from elrea.reporting.sweeps import SUMMARY
from elrea.store.files import read_json

ROWS = ("base", "elrea_one", "gated")


def gains(run: Path) -> list[tuple[bool, int, float]]:
    """Of each cluster: whether its expert serves, its test questions, and how many points it gains on them.

    Raises:
        ElreaError: The run is not finished, or lacks one of `ROWS`.
    """
    if missing := set(ROWS) - read_run(run).correct.keys():
        raise DataError(
            f"{run}: was not scored with {', '.join(sorted(missing))}; name all in evaluation.strategies"
        )
    clusters = read_json(run / SUMMARY)["gates"]["gated"]["clusters"]
    found: list[list[int]] = [[] for _ in clusters]
    for line in (run / PREDICTIONS).read_text().splitlines():
        row = json.loads(line)
        nearest = max(range(len(clusters)), key=row["weights"].__getitem__)
        expert, base = (row["strategies"][name]["correct"] for name in ("elrea_one", "base"))
        found[nearest].append(expert - base)
    return [
        (cluster["serves"], len(each), 100 * sum(each) / max(1, len(each)))
        for cluster, each in zip(clusters, found, strict=True)
    ]


def line(name: str, rows: list[tuple[bool, int, float]]) -> str:
    """Clusters whose experts serve, and how many of these (and of the others) lose on test."""
    inside = [gain for serves, _, gain in rows if serves]
    outside = [gain for serves, _, gain in rows if not serves]
    return (
        f"{name}: {len(inside)} of {len(rows)} serve, {sum(g < 0 for g in inside)} of them lose on test; "
        f"of {len(outside)} that do not, {sum(g > 0 for g in outside)} would gain"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="finished runs with these rows")
    with one_line_errors():
        runs = {str(path): gains(path) for path in parser.parse_args().folders}
        for path, rows in runs.items():
            print(line(path, rows), *(f"{'+' if s else '-'}{gain:+.1f}" for s, _, gain in rows))
        print(line("all", [row for rows in runs.values() for row in rows]))
