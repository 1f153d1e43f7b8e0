"""Draws accuracy against cost from this study's runs.

    python experiments/cost/frontier.py multirun/<day>/<time> multirun/<day>/<time>

Cost counts passes in units of the base adapter's over the same tokens, a backward pass as one: `letter` for a prompt
that is answered by one letter, `text` for 200 tokens of prompt and as many of answer. Accuracy is the mean over seeds.
Prints the table, and writes results.json and frontier.png beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from elrea.commands.messages import one_line_errors
from elrea.errors import DataError
from elrea.reporting.plots.canvas import COLOURS, GREY, WIDTH, save
from elrea.reporting.plots.scatter import MARKERS
from elrea.reporting.runs import finished
from elrea.store.files import write_json

HERE = Path(__file__).parent
ONE = "elrea_one"
"""The cheapest routed strategy, by which routing is priced."""


def read(folders: list[Path]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(router, strategy) -> a row per run.

    Raises:
        ElreaError: a folder is no finished sweep of this study.
    """
    rows = defaultdict(list)
    jobs = [
        folder / job["number"]
        for folder in folders
        for job in finished(folder, ("base", ONE), several=True)
    ]
    for path in sorted(job / "summary.json" for job in jobs):
        summary = json.loads(path.read_text(encoding="utf-8"))
        routing: Any = OmegaConf.load(path.with_name("config.yaml")).routing
        early = routing.get("layer") == "early"
        router = "gradient" if "layer" not in routing else "early" if early else "distilled"
        for name, row in summary["strategies"].items():
            agreement = summary["routing"].get("distilled", {})
            rows[router, name].append({**row, "seed": summary["seed"], "agreement": agreement})
    for (router, name), each in rows.items():
        if len({row["seed"] for row in each}) < len(each):
            raise DataError(
                f"{folders[0]}: {name} with the router {router} has a seed twice; give each sweep once, and none that "
                "varies anything beside router and seed"
            )
    if ("gradient", "base") not in rows:
        raise DataError(f"{folders[0]}: no job routes by gradient; give that sweep too")
    return rows


def costs(row: dict[str, Any], routing: float) -> tuple[float, float]:
    """Of a letter, and of 200 tokens after 200: each new token costs every member, the router works once."""
    members = row["forward_passes"] - routing
    return row["forward_passes"], (row["forward_passes"] + members) / 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    rows = read(parser.parse_args().folders)
    base = [row["accuracy"] for row in rows["gradient", "base"]]
    found = []
    for (router, name), each in rows.items():
        if name == "base" and router != "gradient":
            continue
        # The cheapest routed strategy has one member: what it costs above that is the routing.
        routing = 0.0 if name == "base" else rows[router, ONE][0]["forward_passes"] - 1
        letter, text = costs(each[0], routing)
        accuracies = [row["accuracy"] for row in each]
        mean = sum(accuracies) / len(accuracies)
        found.append(
            {
                "router": "-" if name == "base" else router,
                "strategy": name,
                "accuracy": round(100 * mean, 2),
                "seeds": [round(100 * a, 2) for a in accuracies],
                "over_base": round(100 * (mean - sum(base) / len(base)), 2),
                "letter": round(letter, 2),
                "text": round(text, 2),
            }
        )
    found.sort(key=lambda row: row["text"])
    lines = [
        "| router | strategy | accuracy | over base, points | letter | text |",
        "|---" * 6 + "|",
    ]
    lines += [
        f"| {r['router']} | {r['strategy']} | {r['accuracy']:.1f} | {r['over_base']:+.1f} | "
        f"{r['letter']:.1f} | {r['text']:.1f} |"
        for r in found
    ]
    agreements = {
        router: [row["agreement"] for row in rows[router, "elrea"]]
        for router in ("distilled", "early")
        if (router, "elrea") in rows
    }
    print("\n".join(lines), json.dumps(agreements, indent=1), sep="\n")
    write_json(HERE / "results.json", {"rows": found, "agreement": agreements})
    draw(found, HERE / "frontier.png")


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against the cost of a text: a colour per router, a shape per strategy."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = {"gradient": "gradient", "distilled": "distilled", "early": "distilled, early layer"}
    names = {
        router: name for router, name in names.items() if any(r["router"] == router for r in found)
    }
    colours = {"-": "black", **dict(zip(names, COLOURS, strict=False))}
    shapes = dict(zip(sorted({row["strategy"] for row in found}), MARKERS, strict=False))
    handles = [
        Line2D([], [], marker=shape, color=GREY, linestyle="", label=name) for name, shape in shapes.items()
    ] + [
        Line2D([], [], color=colours[router], linewidth=4, label=f"router: {name}") for router, name in names.items()
    ]  # fmt: skip

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for row in found:
            colour, shape = colours[row["router"]], shapes[row["strategy"]]
            axes.scatter(row["text"], row["accuracy"], s=50, color=colour, marker=shape)
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        axes.minorticks_off()
        axes.set_xlabel("cost of 200 + 200 tokens, base adapter = 1")
        axes.set_ylabel("accuracy (%)")
        axes.grid(True)
        figure.legend(
            handles=handles, loc="outside lower left", ncols=3, fontsize=8, edgecolor="none"
        )

    save(fill, path, (WIDTH, 5.0), "Accuracy against cost", "built-in exam, not MMLU")


if __name__ == "__main__":
    with one_line_errors():
        main()
