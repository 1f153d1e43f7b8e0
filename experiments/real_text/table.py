"""Writes the tables and the plots of this study from the folders of its sweeps, one per backbone.

    python experiments/real_text/table.py multirun/<day>/<time> multirun/<day>/<time>

The response loss is nats per token of the reference response, teacher-forced, of the mean of the members' logits, or,
where a sweep had evaluation.mean_logits=false, of their sum as in (5.10). An item that does not fit the backbone's
length has no loss and is left out for all strategies. Writes table.md, results.json (losses), exact_match.json (the
share of responses that greedy decoding gives word for word) and two plots per backbone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.reporting.compare_markdown import LEGEND, markdown
from elrea.reporting.compare_table import (
    Comparison,
    Row,
    Scores,
    command_line,
    compare,
    part,
    save,
    scores_of,
)
from elrea.reporting.plots.canvas import COLOURS, GREY, WIDTH
from elrea.reporting.plots.canvas import save as save_plot
from elrea.reporting.plots.heatmaps import heat_map
from elrea.reporting.runs import FinishedRun, finished_jobs, read_run
from elrea.store.files import read_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
BASE, LEADER, ALL = "base", "elrea", "all sources"
SETTINGS = ["backbone", "source"]


@dataclass(frozen=True)
class Sweep:
    """A sweep over seeds with one backbone.

    Attributes:
        name: The backbone's, with "-summed" where logits were summed.
        summed: Whether they were.
        runs: One per seed.
        summaries: summary.json of each run.
        items: Indices of the items that have a loss.
        lines: Of each run, the lines of predictions.jsonl of these items.
    """

    name: str
    summed: bool
    runs: list[FinishedRun]
    summaries: list[dict[str, Any]]
    items: list[int]
    lines: list[list[dict[str, Any]]]

    def masks(self) -> dict[str, np.ndarray]:
        """By source, and for all of them, which items belong to it."""
        sources = np.array([line["source"] for line in self.lines[0]])
        each = {str(name): sources == name for name in sorted(set(sources))}
        return {**each, ALL: np.ones(len(sources), dtype=bool)}

    def scores(self, read: Callable[[FinishedRun, str], Sequence[Any]]) -> list[Scores]:
        """Scores by source, from what `read` has of a run's strategy, item by item."""
        whole = scores_of(self.runs)
        found = {
            name: np.array([[read(run, name)[i] for i in self.items] for run in self.runs], float)
            for name in whole.items
        }
        return [
            Scores(
                whole.seeds,
                {name: each[:, mask] for name, each in found.items()},
                (self.name, source),
                passes=whole.passes,
            )
            for source, mask in self.masks().items()
        ]


def read(folder: Path) -> Sweep:
    """Reads a sweep.

    Raises:
        ElreaError: It is not a finished sweep over seeds, or its jobs have different items.
    """
    jobs = finished_jobs(folder, (BASE, LEADER))
    runs = [read_run(folder / job["number"]) for job in jobs]
    scores_of(runs)  # refuses runs on different items
    losses = [column for run in runs for column in run.losses.values()]
    items = [i for i, each in enumerate(zip(*losses, strict=True)) if None not in each]
    lines = []
    for run in runs:
        text = (run.folder / "predictions.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.split("\n") if line]
        rows.sort(key=lambda row: str(row["id"]))  # as in FinishedRun
        lines.append([rows[i] for i in items])
    summaries = [read_json(run.folder / "summary.json") for run in runs]
    summed = not runs[0].settings.get("evaluation.mean_logits", False)
    name = Path(summaries[0]["backbone"]).name + "-summed" * summed
    return Sweep(name, summed, runs, summaries, items, lines)


def routes(sweep: Sweep) -> dict[str, dict[str, float]]:
    """By source, means over seeds and items: w_base, and the largest weight among the experts."""
    base = np.array([[line["w_base"] for line in run] for run in sweep.lines]).mean(axis=0)
    top = np.array([[max(line["weights"]) for line in run] for run in sweep.lines]).mean(axis=0)
    return {
        name: {
            "w_base": round(float(base[mask].mean()), 3),
            "largest": round(float(top[mask].mean()), 3),
        }
        for name, mask in sweep.masks().items()
        if name != ALL
    }


def details(sweep: Sweep) -> dict[str, Any]:
    """The data, the clusters and the weights of a sweep."""
    first, clusters = sweep.summaries[0], [each["clusters"] for each in sweep.summaries]
    dropped = first["examples"]["train_dropped_too_long"]
    return {
        "data": first["data"],
        "examples": {
            "train": first["examples"]["train"] - dropped,
            "train_dropped_too_long": dropped,
            "test": len(sweep.items),
            "test_too_long": len(first["examples"]["test_too_long"]),
        },
        "clusters": [each["by_source"] for each in clusters],
        **{
            key: [each[key] for each in clusters]
            for key in ("nmi_source", "nmi_category", "conflict")
        },
        "routes": routes(sweep),
    }


def cluster_table(seeds: Sequence[int], found: dict[str, Any]) -> str:
    """Training examples of each source in each cluster, and mean weights of its test prompts."""
    heads = ["source", *(f"seed {seed}" for seed in seeds), "w_base", "largest expert's weight"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for source, route in found["routes"].items():
        counts = [" / ".join(map(str, each[source])) for each in found["clusters"]]
        lines.append(
            f"| {source} | {' | '.join(counts)} | {route['w_base']:.2f} | {route['largest']:.2f} |"
        )
    for key in ("nmi_source", "nmi_category", "conflict"):
        lines.append(f"| {key} | {' | '.join(map(str, found[key]))} | | |")
    return "\n".join(lines)


def text_of(losses: Comparison, hits: Comparison) -> str:
    """All tables as Markdown, a chapter per backbone."""
    chapters = []
    for name, found in losses.details.items():
        mine, right = part(losses, name), part(hits, name)
        chapters += [f"## {name}", found["data"]]
        for source in dict.fromkeys(row.setting["source"] for row in mine.rows):
            table = part(mine, source)
            exact = [f"{100 * row.mean:.1f}" for row in part(right, source).rows]
            chapters += [
                f"### {source}: {table.rows[0].items} items",
                markdown(table, {"exact match, %": exact}),
            ]
        chapters += [
            "### Training examples of each source in each cluster; mean weights of its test prompts",
            cluster_table(mine.rows[0].seeds, found),
        ]
    return "\n\n".join([*chapters, LEGEND, f"    {losses.command}"]) + "\n"


def draw_losses(table: Comparison, path: Path, note: str) -> None:
    """Loss less the base adapter's, by source, with paired 95 % intervals over items.

    Args:
        table: Of one backbone.
        path: Of the PNG.
        note: Small print.
    """
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.strategy != BASE:
            groups.setdefault(row.setting["source"], []).append(row)
    most = max(map(len, groups.values()))

    def fill(figure: Figure) -> None:
        axes = np.atleast_1d(figure.subplots(len(groups), 1, sharex=True))
        for axis, (source, rows) in zip(axes, groups.items(), strict=True):
            axis.axvline(0, color=GREY, linestyle="--", linewidth=1)
            for place, row in enumerate(rows):
                gain = row.row_minus_baseline
                if gain is None:
                    continue
                colour = COLOURS[place % len(COLOURS)]
                axis.hlines(place, *gain.items_ci95, color=colour, linewidth=2.2)
                axis.plot(gain.mean, place, "o", color=colour, markersize=6)
                ticks = [place + 0.28] * len(gain.per_seed)
                axis.plot(gain.per_seed, ticks, "|", color=colour, markersize=5)
            axis.set_yticks(np.arange(len(rows)), [row.strategy for row in rows])
            axis.set_ylim(len(rows) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
            axis.grid(True, axis="x")
            axis.set_title(f"{source} ({rows[0].items} items)")
        axes[-1].set_xlabel(
            "response loss less the base adapter's (nats per token)\n"
            "left of 0 is better; bars: paired 95 % intervals; ticks: seeds"
        )

    size = (WIDTH, 1.2 + len(groups) * (0.5 + 0.22 * most))
    save_plot(fill, path, size, "Response loss by source", note)


def draw_clusters(name: str, seed: int, counts: dict[str, list[int]], path: Path) -> None:
    """Training examples of each source in each cluster, with one seed."""
    clusters = [f"cluster {c}" for c in range(len(next(iter(counts.values()))))]
    heat_map(list(counts.values()), list(counts), clusters, path, f"{name}, seed {seed}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="a finished sweep over seeds each")
    parser.add_argument("--into", type=Path, default=HERE, help="folder for tables and plots")
    given = parser.parse_args()
    sweeps = [read(folder) for folder in given.folders]
    names = [sweep.name for sweep in sweeps]
    if len(set(names)) < len(names):
        raise DataError(
            f"two sweeps have the backbone {max(names, key=names.count)}; give one each"
        )
    data = sweeps[0].summaries[0]["data"].partition(" ")[0]
    losses = compare(
        [each for sweep in sweeps for each in sweep.scores(lambda run, name: run.losses[name])],
        command=command_line(), data=data, settings=SETTINGS, leader=LEADER, baseline=BASE, measure="loss",
    ).model_copy(update={"details": {sweep.name: details(sweep) for sweep in sweeps}})  # fmt: skip
    hits = compare(
        [each for sweep in sweeps for each in sweep.scores(lambda run, name: run.correct[name])],
        command=command_line(), data=data, settings=SETTINGS, baseline=BASE,
    )  # fmt: skip
    text = text_of(losses, hits)
    print(text)
    given.into.mkdir(parents=True, exist_ok=True)
    write_text(given.into / "table.md", text)
    save(losses, given.into / "results.json")
    save(hits, given.into / "exact_match.json")
    for sweep in sweeps:
        if sweep.summed:  # the clusters are the same, and losses of sums go off the plot
            continue
        path = given.into / f"loss-{sweep.name}.png"
        draw_losses(part(losses, sweep.name), path, f"{sweep.name}; {len(sweep.runs)} seeds")
        path = given.into / f"clusters-{sweep.name}.png"
        counts = losses.details[sweep.name]["clusters"][0]
        draw_clusters(sweep.name, sweep.runs[0].seed, counts, path)


if __name__ == "__main__":
    with one_line_errors():
        main()
