"""The table and the pictures of a study, from the folder of its sweep.

    python experiments/study.py multirun/<day>/<time> --into experiments/cluster_count
    python experiments/study.py multirun/<day>/<time> --into experiments/conflict --against compute_matched

In every setting of the sweep: each strategy's accuracy (mean over seeds), and ELREA's difference to it in points with a
95 % interval, paired: per test item the mean over seeds, resampled over items (10,000 times). Writes table.md and
results.json, the sweep's own pictures, and with `--against` what ELREA, whole and top-1, gains on that strategy.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elrea.commands.messages import one_line_errors
from elrea.errors import ConfigError
from elrea.evaluation.statistics import paired_interval
from elrea.reporting.plots import trends
from elrea.reporting.runs import answers
from elrea.reporting.sweeps import draw, means, settings, varied
from elrea.store.files import write_json, write_text

Right = dict[str, np.ndarray]
"""Per strategy what was right [seeds, items]."""
OF = "elrea"
GAINS = ("elrea", "elrea_top1")


def read(
    folder: Path, need: Sequence[str]
) -> tuple[list[str], dict[tuple[str, ...], Right], list[dict[str, Any]]]:
    """What was varied beside the seed; per setting what was right; the jobs.

    Raises:
        ElreaError: It is no finished sweep, or lacks a strategy of `need`.
    """
    jobs, rights = answers(folder, need, several=True)
    return settings(varied(jobs)), rights, jobs


def difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Mean of a less mean of b, and the ends of its interval, as shares of 1."""
    return float(a.mean() - b.mean()), *paired_interval(a, b, 0)


def table(
    keys: list[str], rights: dict[tuple[str, ...], Right]
) -> tuple[str, list[dict[str, Any]]]:
    """As Markdown, and as rows."""
    lines = [
        f"| {' | '.join([*keys, 'strategy'])} | accuracy | seeds, least to most | {OF} minus it | 95 % interval |",
        "|---" * (len(keys) + 5) + "|",
    ]
    rows = []
    for group, each in rights.items():
        for name, right in each.items():
            delta, low, high = (round(100 * x, 2) for x in difference(each[OF], right))
            seeds = 100 * right.mean(1)
            row = {
                **dict(zip(keys, group, strict=True)), "strategy": name,
                "accuracy": round(100 * float(right.mean()), 2),
                "seeds": seeds.round(2).tolist(), "elrea_minus_it": delta, "elrea_minus_it_ci95": [low, high],
            }  # fmt: skip
            rows.append(row)
            shown = ["-", "-"] if name == OF else [f"{delta:+.1f}", f"[{low:+.1f}, {high:+.1f}]"]
            span = f"{seeds.min():.1f} to {seeds.max():.1f}"
            cells = [*group, name, f"{right.mean() * 100:.1f}", span, *shown]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines), rows


def gains(
    keys: list[str], rights: dict[tuple[str, ...], Right], against: str, path: Path, note: str
) -> None:
    """Draws what ELREA gains on a strategy against the first key; the others name lines."""
    lines: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    for group, each in rights.items():
        for name in GAINS:
            others = [f"{key}={value}" for key, value in zip(keys[1:], group[1:], strict=True)]
            point = (float(group[0]), *difference(each[name], each[against]))
            lines[", ".join([name, *others])].append(point)
    trends.trend(lines, keys[0], path, gain_on=against, note=note)


def check_numbers(keys: list[str], rights: dict[tuple[str, ...], Right]) -> None:
    """Refuses `--against` where what was varied first is no number."""
    if not keys:
        raise ConfigError("--against: nothing was varied beside the seed; leave it out")
    for value, *_ in rights:
        try:
            float(value)
        except ValueError:
            raise ConfigError(
                f"--against is drawn over numbers, and {keys[0]}={value} is none; leave it out"
            ) from None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, required=True, help="where table and pictures go")
    parser.add_argument("--against", help="the strategy on which ELREA's gain is drawn")
    given = parser.parse_args()
    need = [OF, *GAINS, given.against] if given.against else [OF]
    keys, rights, jobs = read(given.folder, need)
    if given.against:
        check_numbers(keys, rights)
    some = next(iter(rights.values()))[OF]
    note = f"{jobs[0]['data']}; {some.shape[1]:,} test items, {some.shape[0]} seeds"
    text, rows = table(keys, rights)
    print(f"{note}\n\n{text}")
    given.into.mkdir(parents=True, exist_ok=True)
    write_text(given.into / "table.md", f"{note}\n\n{text}\n")
    write_json(given.into / "results.json", {"note": note, "rows": rows})
    draw(means(jobs), keys, given.into, note)
    if given.against:
        gains(keys, rights, given.against, given.into / f"gain_on_{given.against}.png", note)


if __name__ == "__main__":
    with one_line_errors():
        main()
