"""The tables and the pictures of this study, from the folders of its sweeps: one per backbone.

    python experiments/real_text/table.py multirun/<day>/<time> multirun/<day>/<time>

The response loss is nats per token of the reference response, teacher-forced, under a strategy's mix: of the mean of
its members' logits, or, where a sweep had evaluation.mean_logits=false, of their sum as (5.10) has it. Differences are
paired: per test item the mean over seeds, resampled over items (10,000 times). An item that does not fit the backbone's
length has no loss and is left out, for all strategies alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from elrea.commands.messages import one_line_errors
from elrea.errors import DataError
from elrea.evaluation.statistics import paired_interval
from elrea.reporting.plots.canvas import COLOURS, GREY, WIDTH, save
from elrea.reporting.plots.heatmaps import heat_map
from elrea.reporting.runs import finished
from elrea.store.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
BASE, OF, ALL = "base", "elrea", "all sources"
Scores = dict[str, np.ndarray]
"""By strategy [seeds, items]."""


def read(
    folder: Path,
) -> tuple[list[dict[str, Any]], list[str], Scores, Scores, list[list[dict[str, Any]]]]:
    """The seeds' summaries; of the items with a loss their sources, losses and exact matches; all lines.

    Raises:
        ElreaError: it is no finished sweep over seeds, or the jobs have other items.
    """
    jobs = finished(folder, (BASE, OF))
    summaries, runs = [], []
    for job in jobs:
        summaries.append(read_json(folder / job["number"] / "summary.json"))
        lines = (folder / job["number"] / "predictions.jsonl").read_text(encoding="utf-8")
        runs.append([json.loads(line) for line in lines.split("\n") if line])
    if any([row["id"] for row in run] != [row["id"] for row in runs[0]] for run in runs):
        raise DataError(f"{folder}: its jobs have other test items")
    kept = [i for i, row in enumerate(runs[0]) if row["strategies"][BASE]["loss"] is not None]
    runs = [[run[i] for i in kept] for run in runs]
    names = list(runs[0][0]["strategies"])
    losses, right = (
        {
            name: np.array([[row["strategies"][name][key] for row in run] for run in runs], float)
            for name in names
        }
        for key in ("loss", "correct")
    )
    return summaries, [row["source"] for row in runs[0]], losses, right, runs


def difference(a: np.ndarray, b: np.ndarray) -> list[float]:
    """Mean of a less mean of b, and the ends of its paired 95 % interval."""
    return [round(float(x), 4) for x in (a.mean() - b.mean(), *paired_interval(a, b, 0))]


def figures(sources: Sequence[str], losses: Scores, right: Scores) -> dict[str, dict[str, Any]]:
    """By source, and over all items: what each strategy came to."""
    groups = {name: np.array(sources) == name for name in sorted(set(sources))}
    groups[ALL] = np.ones(len(sources), dtype=bool)
    found: dict[str, dict[str, Any]] = {}
    for group, mask in groups.items():
        base, mine = losses[BASE][:, mask], losses[OF][:, mask]
        found[group] = {"items": int(mask.sum()), "strategies": {}}
        for name, every in losses.items():
            loss, hits = every[:, mask], right[name][:, mask]
            found[group]["strategies"][name] = {
                "loss": round(float(loss.mean()), 4),
                "loss_seeds": loss.mean(1).round(4).tolist(),
                "minus_base": difference(loss, base),
                "minus_base_seeds": (loss - base).mean(1).round(4).tolist(),
                "elrea_minus_it": difference(mine, loss),
                "exact_match": round(100 * float(hits.mean()), 2),
                "exact_match_seeds": (100 * hits.mean(1)).round(2).tolist(),
                "exact_match_minus_base": [round(100 * x, 2) for x in difference(hits, right[BASE][:, mask])],
            }  # fmt: skip
    return found


def routes(sources: Sequence[str], runs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """By source, means over seeds and items: w_base, and the largest weight among the experts."""
    base = np.array([[row["w_base"] for row in run] for run in runs]).mean(0)
    top = np.array([[max(row["weights"]) for row in run] for run in runs]).mean(0)
    masks = {name: np.array(sources) == name for name in sorted(set(sources))}
    return {
        name: {
            "w_base": round(float(base[mask].mean()), 3),
            "largest": round(float(top[mask].mean()), 3),
        }
        for name, mask in masks.items()
    }


def signed(values: Sequence[float], digits: int = 3) -> str:
    """A difference and its interval."""
    middle, low, high = (f"{value:+.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


def tables(found: dict[str, Any]) -> str:
    """A backbone's tables as Markdown."""
    seeds = found["seeds"]
    text = []
    for group, of in found["sources"].items():
        heads = [
            "strategy", "loss", *(f"seed {s}" for s in seeds), "less base's, 95 % interval",
            *(f"seed {s}" for s in seeds), "elrea less it, 95 % interval", "exact match %",
        ]  # fmt: skip
        text += [f"### {group}: {of['items']} items", ""]
        text += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for name, row in of["strategies"].items():
            cells = [
                name, f"{row['loss']:.3f}", *(f"{x:.3f}" for x in row["loss_seeds"]),
                "-" if name == BASE else signed(row["minus_base"]),
                *("-" if name == BASE else f"{x:+.3f}" for x in row["minus_base_seeds"]),
                "-" if name == OF else signed(row["elrea_minus_it"]), f"{row['exact_match']:.1f}",
            ]  # fmt: skip
            text.append(f"| {' | '.join(cells)} |")
        text.append("")
    heads = ["source", *(f"seed {s}" for s in seeds), "w_base", "largest expert's weight"]
    text += ["### Training examples of each source in each cluster; mean weights of its test prompts", ""]  # fmt: skip
    text += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for source, route in found["routes"].items():
        counts = [" / ".join(map(str, each[source])) for each in found["clusters"]]
        text.append(
            f"| {source} | {' | '.join(counts)} | {route['w_base']:.2f} | {route['largest']:.2f} |"
        )
    for key in ("nmi_source", "nmi_category", "conflict"):
        text.append(f"| {key} | {' | '.join(map(str, found[key]))} | | |")
    return "\n".join(text)


def draw(found: dict[str, Any], path: Path, note: str) -> None:
    """Loss less the base adapter's, by source, with paired 95 % intervals."""
    groups = found["sources"]
    names = [name for name in next(iter(groups.values()))["strategies"] if name != BASE]

    def fill(figure: Figure) -> None:
        axes = figure.subplots(len(groups), 1, sharex=True)
        for axis, (group, of) in zip(np.atleast_1d(axes), groups.items(), strict=True):
            rows = [of["strategies"][name] for name in names]
            places = np.arange(len(names))
            axis.axvline(0, color=GREY, linestyle="--", linewidth=1)
            for place, row in zip(places, rows, strict=True):
                middle, low, high = row["minus_base"]
                colour = COLOURS[place % len(COLOURS)]
                axis.hlines(place, low, high, color=colour, linewidth=2.2)
                axis.plot(middle, place, "o", color=colour, markersize=6)
                each = row["minus_base_seeds"]
                axis.plot(each, [place + 0.28] * len(each), "|", color=colour, markersize=5)
            axis.set_yticks(places, names)
            axis.set_ylim(len(names) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
            axis.grid(True, axis="x")
            axis.set_title(f"{group} ({of['items']} items)")
        axis.set_xlabel(
            "response loss less the base adapter's (nats per token)\n"
            "left of 0 is better; bars: paired 95 % intervals; ticks: seeds"
        )

    size = (WIDTH, 1.2 + len(groups) * (0.5 + 0.22 * len(names)))
    save(fill, path, size, "Response loss by source", note)


def study(folder: Path, into: Path) -> tuple[str, dict[str, Any]]:
    """A backbone's name and figures; draws its pictures."""
    summaries, sources, losses, right, runs = read(folder)
    first = summaries[0]
    name = Path(first["backbone"]).name
    mean = OmegaConf.load(folder / "0" / "config.yaml").evaluation.get("mean_logits", False)
    if not mean:
        name += "-summed"
    found = {
        "data": first["data"],
        "seeds": [summary["seed"] for summary in summaries],
        "examples": {
            "train": first["examples"]["train"] - first["examples"]["train_dropped_too_long"],
            "train_dropped_too_long": first["examples"]["train_dropped_too_long"],
            "test": len(sources),
            "test_too_long": len(first["examples"]["test_too_long"]),
        },
        "sources": figures(sources, losses, right),
        "clusters": [summary["clusters"]["by_source"] for summary in summaries],
        **{
            key: [summary["clusters"][key] for summary in summaries]
            for key in ("nmi_source", "nmi_category", "conflict")
        },
        "routes": routes(sources, runs),
        "forward_passes": {key: row["forward_passes"] for key, row in first["strategies"].items()},
    }
    if not mean:  # the clusters are the same, and losses of sums go off the picture
        return name, found
    draw(found, into / f"loss-{name}.png", f"{name}; {len(runs)} seeds")
    counts = found["clusters"][0]
    clusters = [f"cluster {c}" for c in range(len(next(iter(counts.values()))))]
    note = f"{name}, seed {found['seeds'][0]}"
    heat_map(list(counts.values()), list(counts), clusters, into / f"clusters-{name}.png", note)
    return name, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="a sweep over seeds each")
    parser.add_argument("--into", type=Path, default=HERE, help="where tables and pictures go")
    given = parser.parse_args()
    for folder in given.folders:  # before anything is drawn
        finished(folder, (BASE, OF))
    given.into.mkdir(parents=True, exist_ok=True)
    found = dict(study(folder, given.into) for folder in given.folders)
    text = "\n\n".join(
        f"## {name}\n\n{of['data']}\n\n{tables(of)}" for name, of in found.items()
    )  # fmt: skip
    print(text)
    write_text(given.into / "table.md", f"{text}\n")
    write_json(given.into / "results.json", found)


if __name__ == "__main__":
    with one_line_errors():
        main()
