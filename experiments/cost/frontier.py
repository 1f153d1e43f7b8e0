"""Draws accuracy against cost from the sweeps of this study.

    python experiments/cost/frontier.py multirun/<day>/<time> multirun/<day>/<time>

Cost counts passes, a backward pass as one, in units of the base adapter's pass over the same tokens: `letter` for a
prompt that is answered by one letter, `text` for 200 tokens of prompt and as many of answer. Prints the table, and
writes table.md, results.json and frontier.png beside this file.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.reporting.compare_markdown import page
from elrea.reporting.compare_table import (
    Comparison,
    Row,
    Scores,
    command_line,
    compare,
    save,
    scores_of,
)
from elrea.reporting.plots.canvas import COLOURS, GREY, WIDTH
from elrea.reporting.plots.canvas import save as save_plot
from elrea.reporting.plots.scatter import MARKERS
from elrea.reporting.runs import FinishedRun, finished_jobs, read_run
from elrea.store.files import read_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
BASE = "base"
ONE = "elrea_one"
"""The cheapest routed strategy. It has one member, so its passes less one are the passes of routing."""
ROUTERS = {"gradient": "gradient", "distilled": "distilled", "early": "distilled, early layer"}


def read(folders: Sequence[Path]) -> tuple[list[Scores], dict[str, list[Any]], str]:
    """Scores of each router, the agreement of distilled routers with the gradients, and the name of the data.

    Raises:
        ElreaError: A folder is not a finished sweep of this study, or no job routes by gradient.
    """
    runs: dict[str, list[FinishedRun]] = defaultdict(list)
    agreement: dict[str, list[Any]] = defaultdict(list)
    for folder in folders:
        for job in finished_jobs(folder, (BASE, ONE), several=True):
            run = read_run(folder / job["number"])
            router = router_of(run)
            runs[router].append(run)
            if router != "gradient":
                summary = read_json(run.folder / "summary.json")
                agreement[router].append(summary["routing"].get("distilled", {}))
    if "gradient" not in runs:
        raise DataError(f"{folders[0]}: no job routes by gradient; give that sweep too")
    scores = [scores_of(runs[router], (router,)) for router in ROUTERS if router in runs]
    return scores, dict(agreement), runs["gradient"][0].data


def router_of(run: FinishedRun) -> str:
    layer = run.settings.get("routing.layer")
    return "gradient" if layer is None else "early" if layer == "early" else "distilled"


def costs(row: Row, routing: float) -> tuple[float, float]:
    """Passes for a letter, and for 200 tokens after 200: a new token costs every member, the router works once."""
    passes = row.passes or 0.0
    members = passes - routing
    return round(passes, 2), round((passes + members) / 2, 2)


def priced(table: Comparison) -> tuple[Comparison, dict[str, list[float]]]:
    """The rows by cost of a text, with both costs; the base adapter appears once.

    The base adapter does not route, so its rows are the same for each router.
    """
    found = []
    for row in table.rows:
        router = row.setting["router"]
        if row.strategy == BASE:
            if router == "gradient":
                found.append((*costs(row, 0.0), row))
            continue
        (one,) = (r for r in table.rows if r.setting == row.setting and r.strategy == ONE)
        found.append((*costs(row, (one.passes or 1.0) - 1), row))
    found.sort(key=lambda each: each[1])
    letters, texts, rows = (list(column) for column in zip(*found, strict=True))
    return table.model_copy(update={"rows": rows}), {"letter": letters, "text": texts}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="finished sweeps")
    scores, agreement, data = read(parser.parse_args().folders)
    table, prices = priced(
        compare(scores, command=command_line(), data=data, settings=["router"], baseline=BASE)
    )
    text = page(table, {name: [f"{x:.1f}" for x in each] for name, each in prices.items()})
    print(text)
    write_text(HERE / "table.md", text)
    details = {"agreement": agreement, **prices}
    save(table.model_copy(update={"details": details}), HERE / "results.json")
    draw(table, prices["text"], HERE / "frontier.png")


def draw(table: Comparison, texts: Sequence[float], path: Path) -> None:
    """Accuracy against the cost of a text: a colour per router, a shape per strategy."""
    from matplotlib.lines import Line2D

    there = {row.setting["router"] for row in table.rows}
    names = {router: name for router, name in ROUTERS.items() if router in there}
    colours = dict(zip(names, COLOURS, strict=False))
    shapes = dict(zip(sorted({row.strategy for row in table.rows}), MARKERS, strict=False))
    handles = [
        Line2D([], [], marker=shape, color=GREY, linestyle="", label=name)
        for name, shape in shapes.items()
    ] + [
        Line2D([], [], color=colours[router], linewidth=4, label=f"router: {name}")
        for router, name in names.items()
    ]

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for row, cost in zip(table.rows, texts, strict=True):
            colour = "black" if row.strategy == BASE else colours[row.setting["router"]]
            axes.scatter(cost, 100 * row.mean, s=50, color=colour, marker=shapes[row.strategy])
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        axes.minorticks_off()
        axes.set_xlabel("cost of 200 + 200 tokens, base adapter = 1")
        axes.set_ylabel("accuracy (%)")
        axes.grid(True)
        figure.legend(
            handles=handles, loc="outside lower left", ncols=3, fontsize=8, edgecolor="none"
        )

    save_plot(fill, path, (WIDTH, 5.0), "Accuracy against cost", table.data)


if __name__ == "__main__":
    with one_line_errors():
        main()
