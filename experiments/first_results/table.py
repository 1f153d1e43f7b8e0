"""Draws the table and the figure of this study from its runs.

    python experiments/first_results/table.py multirun/<day>/<time>
    python experiments/first_results/table.py multirun/<day>/<time> --into experiments/first_results/fresh

Differences are paired: per test item the mean over seeds, resampled over items (10,000 times).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from elrea.commands.messages import one_line_errors
from elrea.errors import ConfigError
from elrea.evaluation.statistics import paired_interval, wilson
from elrea.reporting.plots.figures import accuracy
from elrea.reporting.runs import answers
from elrea.store.files import write_json, write_text

HERE = Path(__file__).parent


def read(folder: Path) -> tuple[list[int], dict[str, np.ndarray], str]:
    """Seeds, per strategy what was right [seeds, items], and the data's name.

    Raises:
        ElreaError: It is no finished sweep over seeds.
    """
    jobs, rights = answers(folder)
    return [job["seed"] for job in jobs], rights[()], jobs[0]["data"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--of", default="elrea", help="the strategy whose differences are shown; only printed"
    )
    parser.add_argument("--into", type=Path, default=HERE, help="where table and figure go")
    given = parser.parse_args()
    seeds, right, data = read(given.folder)
    if given.of not in right:
        raise ConfigError(
            f"{given.folder}: --of {given.of}: it was not scored (there is: {', '.join(right)})"
        )
    mine = right[given.of]
    lines = [
        f"| strategy | {' | '.join(f'seed {s}' for s in seeds)} | mean | {given.of} minus it, points | 95 % interval |",
        "|---|" + "---|" * (len(seeds) + 3),
    ]
    figures = {}
    for name, scores in right.items():
        each = 100 * scores.mean(1)
        low, high = paired_interval(mine, scores, 0)
        delta = 100 * (mine.mean() - scores.mean())
        difference = (
            ["-", "-"]
            if name == given.of
            else [f"{delta:+.1f}", f"[{100 * low:+.1f}, {100 * high:+.1f}]"]
        )
        cells = [*(f"{value:.1f}" for value in each), f"{each.mean():.1f}", *difference]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        figures[name] = {
            "accuracy": float(scores.mean()),
            "ci95": wilson(scores.ravel()),
            "per_seed": each.round(3).tolist(),
            "elrea_minus_it": round(delta, 3),
            "elrea_minus_it_ci95": [round(100 * low, 3), round(100 * high, 3)],
        }
    table = "\n".join(lines)
    print(table)
    if given.of != "elrea":
        return
    given.into.mkdir(parents=True, exist_ok=True)
    write_text(
        given.into / "table.md", f"{data}, {mine.shape[1]} items, seeds {seeds}\n\n{table}\n"
    )
    write_json(
        given.into / "results.json",
        {"data": data, "items": mine.shape[1], "seeds": seeds, "rows": figures},
    )
    accuracy(figures, given.into / "accuracy.png", 0.25, f"{data}; seeds {seeds}")


if __name__ == "__main__":
    with one_line_errors():
        main()
