"""Writes the tables and the frontier of this study from the folders of its finished runs, one per seed.

    python -m experiments.real_model.table <work>/runs/test-small-4-0 <work>/runs/test-small-4-1 ... --into <folder>

Rows that have runs of their own are taken from those beside these, `distilled-small-4-0`, `matched-first-small-4-0` and
so on, where all seeds' are there.

Two measures: accuracy on the items with choices (gsm8k and gigaword have none), and the loss in nats per token of the
response on all items. Writes table.md, accuracy.json and loss.json (the schema of experiments/README.md), and
frontier.png: accuracy against all that was computed before the first test prompt, in passes over the training data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.reporting.compare_markdown import LEGEND, markdown, note
from elrea.reporting.compare_table import (
    Comparison,
    Scores,
    command_line,
    compare,
    part,
    save,
    scores_of,
)
from elrea.reporting.plots.canvas import COLOURS, WIDTH
from elrea.reporting.plots.canvas import save as save_plot
from elrea.reporting.run_tables import QUALITY
from elrea.reporting.runs import FinishedRun, read_run
from elrea.reporting.sweeps import SUMMARY
from elrea.store.files import read_json, write_text
from experiments.real_model.rows import BESIDE, DISTILLED, JOINT, ROWS, STEERED, beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
LEADER, BASELINE, ALL = "elrea", "base", "all"
FREE = ("gigaword", "gsm8k")
"""Sources without choices."""
OF_CLUSTERS = (
    "nmi_source",
    "conflict",
    "within",
    "between",
    "stability_seeds",
    "stability_samples",
)
"""The figures of clusters that are shown beside their sizes, by their names in summary.json."""
POWER = 2.8
"""Standard errors that a difference needs for 80 % power at the 5 % level: 1.96 + 0.84."""


def with_rows(run: FinishedRun, other: FinishedRun, rows: Mapping[str, str]) -> FinishedRun:
    """A seed's run with rows of another of its runs, each under its name in the table.

    Raises:
        DataError: The two have different test items.
    """
    if run.items != other.items:
        raise DataError(f"{other.folder}: its test items are not those of {run.folder}")
    return replace(
        run,
        **{
            kind: getattr(run, kind)
            | {row: getattr(other, kind)[name] for row, name in rows.items()}
            for kind in ("correct", "losses", "figures")
        },
    )


def scores(
    runs: Sequence[FinishedRun], read: Callable[[FinishedRun, str], Sequence[Any]], free: bool
) -> list[Scores]:
    """Scores on all items and on each source's.

    Args:
        runs: One per seed.
        read: A run's and strategy's scores, item by item; None where an item did not fit.
        free: Whether items without choices count.
    """
    whole, sources = scores_of(runs), runs[0].sources
    named = {name: [read(run, name) for run in runs] for name in whole.items}
    fits = [
        all(None not in (row[i] for row in rows) for rows in named.values())
        for i in range(len(sources))
    ]
    used = np.array(
        [ok and (free or source not in FREE) for ok, source in zip(fits, sources, strict=True)]
    )
    found = []
    for place in (ALL, *sorted(set(np.array(sources)[used]))):
        mask = used if place == ALL else used & (np.array(sources) == place)
        items = {
            name: np.array(rows, dtype=object)[:, mask].astype(float)
            for name, rows in named.items()
        }
        found.append(Scores(whole.seeds, items, (str(place),), passes=whole.passes))
    return found


def training_passes(strategy: str, settings: Mapping[str, Any]) -> float:
    """What a row computes before the first test prompt, in passes over all training examples, forward and backward.

    Features by gradient count as one pass per checkpoint, those by hidden states, which need no backward pass, as half
    of one, since a backward pass computes no gradients of the frozen weights (`Features.passes`). It is a little too
    much: features read the prompts without their responses.

    Args:
        strategy: The row's name.
        settings: Of the run that it was scored in, with dotted keys.

    Raises:
        DataError: No row of this study has the name.
    """
    base, experts = float(settings["training.epochs"]), float(settings["training.expert_epochs"])
    strategy = JOINT.get(strategy, strategy)
    if strategy == "backbone":
        return 0.0
    if strategy in ("base", "source"):
        return base
    if strategy in (
        "continued",
        "compute_matched",
        "parameter_matched",
        "parameter_matched_rslora",
        "random_cluster",
    ):
        return base + experts
    if strategy in ("elrea_states", "instruction_embedding"):
        return base + experts + 1 / 2
    if strategy in STEERED:
        own = settings.get(f"evaluation.settings.{strategy}.epochs", base + experts)
        return base + base + float(own)
    if strategy in DISTILLED:
        return base + experts + base + 1 / 2
    if strategy not in ROWS:
        raise DataError(
            f"{strategy}: not a row of this study; give what it trains in `training_passes`"
        )
    return base + experts + base  # one checkpoint per epoch of the base adapter


def clusters_of(runs: Sequence[FinishedRun]) -> dict[str, dict[str, Any]]:
    """The figures of ELREA's clusters, by seed, as the runs' summary.json have them."""
    found = {}
    for run in runs:
        clusters = read_json(run.folder / SUMMARY)["clusters"]
        found[str(run.seed)] = {key: clusters[key] for key in ("by_source", *OF_CLUSTERS)}
    return found


def clusters_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Training examples of each source in each cluster, and the clusters' figures, a column per seed."""
    lines = [f"| | {' | '.join(f'seed {seed}' for seed in found)} |", "|---" * (1 + len(found)) + "|"]  # fmt: skip
    for source in next(iter(found.values()))["by_source"]:
        counts = [" / ".join(map(str, each["by_source"][source])) for each in found.values()]
        lines.append(f"| {source} | {' | '.join(counts)} |")
    for key in OF_CLUSTERS:
        values = ["-" if each[key] is None else f"{each[key]:.2f}" for each in found.values()]
        lines.append(f"| {QUALITY[key]} | {' | '.join(values)} |")
    return "\n".join(lines)


def resolved(table: Comparison) -> float:
    """The smallest difference to the leader that the study finds with 80 % power.

    It is the median over rows of `POWER` standard errors, each from the width of the interval over seeds and items, or
    over items alone with one seed.
    """
    errors = []
    for row in table.rows:
        if row.leader_minus_row is not None:
            low, high = row.leader_minus_row.widest
            errors.append((high - low) / (2 * 1.96))
    return POWER * float(np.median(errors))


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Sorted heights, moved as little as needed to be at least so far apart, from the middle of each group outwards."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _lowest(groups[-1], least) < (
            _lowest(groups[-2], least) + least * len(groups[-2])
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group, least) + least * i for group in groups for i in range(len(group))]


def _lowest(group: Sequence[float], least: float) -> float:
    """Where a group begins that is spread evenly around its mean."""
    return float(np.mean(group)) - least * (len(group) - 1) / 2


def draw_frontier(table: Comparison, passes: Sequence[float], path: Path) -> None:
    """Accuracy of each row against its passes; names stand at the right, in the order of accuracy."""
    order = sorted(range(len(passes)), key=lambda number: (table.rows[number].mean, passes[number]))
    low = min(min(row.per_seed) for row in table.rows)
    high = max(max(row.per_seed) for row in table.rows)
    heights = apart([(table.rows[number].mean - low) / (high - low) for number in order], 0.05)

    def fill(figure: Figure) -> None:
        axis = figure.subplots()
        for place, (number, height) in enumerate(zip(order, heights, strict=True)):
            row, x = table.rows[number], passes[number]
            y = [100 * value for value in row.per_seed]
            colour = COLOURS[place % len(COLOURS)]
            axis.vlines(x, min(y), max(y), color=colour, linewidth=1)
            axis.plot(x, 100 * row.mean, "o", color=colour)
            axis.annotate(
                f"{row.strategy} {100 * row.mean:.1f}",
                (x, 100 * row.mean),
                (1.08, height),
                textcoords="axes fraction",
                va="center",
                fontsize=8,
                arrowprops={
                    "arrowstyle": "-", "linewidth": 0.6, "color": colour, "relpos": (0, 0.5), "shrinkA": 0,
                },
            )  # fmt: skip
        axis.set_xlabel("passes over the training data, those for features included")
        axis.set_ylabel("accuracy, % (bars: seeds)")
        axis.grid(True)

    save_plot(fill, path, (WIDTH, 5.0), "Accuracy against compute", note(table))


def text_of(accuracy: Comparison, loss: Comparison, passes: Sequence[float]) -> str:
    """All tables as Markdown."""
    whole = part(accuracy, ALL)
    shown = {"training passes": [f"{x:.1f}" for x in passes]}
    chapters = [
        "# Accuracy", note(whole), markdown(whole, shown),
        f"The study finds a difference of {100 * resolved(whole):.1f} points with 80 % power (2.8 standard errors by "
        "the interval over both, the median over rows).",
        "# Loss", note(part(loss, ALL)), markdown(part(loss, ALL)),
        "# ELREA's clusters: training examples of each source in each",
        clusters_table(accuracy.details["clusters"]),
    ]  # fmt: skip
    for title, table in (("Accuracy", accuracy), ("Loss", loss)):
        for source in dict.fromkeys(row.setting["source"] for row in table.rows):
            if source != ALL:
                chapters += [f"## {title}: {source}", markdown(part(table, source))]
    return "\n\n".join([*chapters, LEGEND, f"    {accuracy.command}"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="a finished run of the study each")
    parser.add_argument("--into", type=Path, default=HERE, help="folder for tables and plots")
    given = parser.parse_args()
    runs = [read_run(folder) for folder in given.folders]
    settings = dict.fromkeys(runs[0].correct, runs[0].settings)
    for kind, rows in BESIDE.items():
        folders = [folder.with_name(beside(folder.name, kind)) for folder in given.folders]
        if all((folder / "summary.json").is_file() for folder in folders):
            others = [read_run(folder) for folder in folders]
            runs = [with_rows(*both, rows) for both in zip(runs, others, strict=True)]
            settings |= dict.fromkeys(rows, others[0].settings)
    if any(run.data != runs[0].data for run in runs):
        raise DataError(
            "the runs have different data; give those of one size and number of clusters"
        )
    common: dict[str, Any] = {
        "command": command_line(), "data": "seven real sources", "settings": ["source"], "leader": LEADER,
        "baseline": BASELINE,
    }  # fmt: skip
    accuracy = compare(scores(runs, lambda run, name: run.correct[name], False), **common)
    accuracy = accuracy.model_copy(update={"details": {"clusters": clusters_of(runs)}})
    loss = compare(scores(runs, lambda run, name: run.losses[name], True), measure="loss", **common)
    passes = [
        training_passes(row.strategy, settings[row.strategy]) for row in part(accuracy, ALL).rows
    ]
    text = text_of(accuracy, loss, passes)
    print(text)
    given.into.mkdir(parents=True, exist_ok=True)
    write_text(given.into / "table.md", text)
    save(accuracy, given.into / "accuracy.json")
    save(loss, given.into / "loss.json")
    draw_frontier(part(accuracy, ALL), passes, given.into / "frontier.png")


if __name__ == "__main__":
    with one_line_errors():
        main()
