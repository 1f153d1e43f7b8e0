"""Writes report.html of a run or a sweep: one file with all results and plots, without scripts or network access."""

from __future__ import annotations

import base64
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.evaluation.similarity import NAMES
from elrea.reporting import run_tables
from elrea.reporting.sweeps import making_seconds
from elrea.reporting.terminal import interval, percent
from elrea.store.files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from elrea.reporting.report import Report

REPORT = "report.html"
CAPTIONS = {
    "accuracy": "Accuracy of every strategy.",
    "subjects": "Accuracy by task (subject or source): the chosen strategy minus the base adapter.",
    "clusters": "Training examples by source and cluster.",
    "features": "The training examples' features, two leading components.",
    "routing": "Mean weight of each member on each source's test prompts, by ELREA, or by the chosen strategy if "
    "it routes by ELREA's clusters.",
    "training": "Training losses.",
    "trend": "Accuracy against what the sweep varies, mean over seeds; bars: 95 % intervals.",
    "gain": "Gain over the base adapter against what the sweep varies; bars: paired 95 % intervals.",
    "cost": "Accuracy against forward passes per prompt.",
    "curves_accuracy": "Accuracy on dev against the training examples, with the lines through them to the full size.",
    "curves_loss": "Loss on dev against the training examples, with the lines through them to the full size.",
    "training_cost": "Accuracy against the seconds of training that a strategy needs, whichever run made its stages.",
}
"""Caption of each plot, in the order of the page."""

NUMBER = re.compile(r"[-+]?[\d.,]+( to [-+]?[\d.,]+)?|\[.*\]|-")
"""Text of cells that are aligned to the right."""

SUMS = {
    "uniform": "those of uniform sum to the number of members",
    "elrea": "those of elrea sum to 1 + w_base",
}
"""By strategy, what its members' weights sum to."""

FIGURES = ["accuracy %", "95 % interval", "to base, points", "95 % interval, paired", "passes"]


def run_report(folder: Path, report: Report, pictures: Mapping[str, Path]) -> Path:
    """Writes a finished run's report.html.

    Args:
        folder: Of the run.
        report: Of the run.
        pictures: Paths of PNG files by name, see `CAPTIONS`.

    Raises:
        StoreError: The report cannot be written.
    """
    lengths = any("acc_norm" in row for row in report.strategies.values())
    rows = [
        (
            *_figure_cells(row.get("label", name), row),
            _loss(row),
            *([percent(row.get("acc_norm"))] if lengths else []),
        )
        for name, row in report.strategies.items()
    ]
    heads = [
        *FIGURES,
        "loss",
        *(["acc_norm %"] if lengths else []),
    ]
    stages = [
        (name, stage.key, f"{stage.seconds:,.1f}", "reused" if stage.reused else "made")
        for name, stage in report.stages.items()
    ]
    losses = [name for name, row in report.strategies.items() if row.get("loss") is not None]
    return _write(
        folder, "run.html", title=report.name or f"{report.chosen}, {report.data}", report=report, figures=heads,
        rows=rows, stages=stages, reuse=_reuse(report), images=_images(pictures), free=_free_text(report.strategies),
        free_heads=[head for name in NAMES.values() for head in (f"{name} %", "95 % interval", "to base, paired")],
        command=shlex.join(report.command), tables=run_tables.values(report),
        losses=bool(losses), sums=[SUMS[name] for name in SUMS if name in losses],
    )  # fmt: skip


def sweep_report(
    folder: Path,
    words: Sequence[str],
    jobs: Sequence[Mapping[str, Any]],
    varied: Mapping[str, Sequence[str]],
    settings: Sequence[str],
    means: Iterable[Mapping[str, Any]],
) -> Path:
    """Writes a sweep's report.html.

    Args:
        folder: Of the sweep; the plots in its `plots/` are included.
        words: The command line after `run.py`.
        jobs: With `number`, `state`, `chosen`, `seconds`, `data`, `strategies`, and `error` if the job failed.
        varied: Values that differ between jobs: by key, the value in each job.
        settings: The keys that distinguish settings: those of `varied` without seed and `ensemble`.
        means: From `elrea.reporting.sweep_report.seed_means`.

    Raises:
        StoreError: The report cannot be written.
    """
    overall = [
        (*row["group"], row["strategy"], str(row["seeds"]), percent(row["accuracy"]), interval(row["accuracy_ci95"]),
         percent(row["delta"], signed=True), interval(row["delta_ci95"], signed=True),
         " to ".join(percent(end) for end in row["accuracy_seeds"]), f"{row['passes']:,.4g}", _seconds(row["training"]))
        for row in means
    ]  # fmt: skip
    job_rows = []
    for i, job in enumerate(jobs):
        row = job["strategies"].get(job["chosen"], {})
        state = job["state"]
        state = state if state == "done" else f"{state}: {job.get('error', '')}"
        values = [keys[i] for keys in varied.values()]
        number = _link(job["number"]) if row else job["number"]
        times = _seconds(making_seconds(job)), _seconds(job.get("seconds"))
        job_rows.append((number, *values, *_figure_cells(job["chosen"], row)[:3], *times, state))
    pictures = {path.stem: path for path in (folder / "plots").glob("*.png")}
    return _write(
        folder, "sweep.html", title=f"Sweep of {len(jobs)} jobs", jobs=job_rows, data=data_of(jobs),
        done=sum(job["state"] == "done" for job in jobs), images=_images(pictures), figures=FIGURES,
        settings=list(settings), varied=list(varied), overall=overall, command=shlex.join(words),
    )  # fmt: skip


def verdict_report(
    folder: Path,
    words: Sequence[str],
    *,
    parts: Sequence[Sequence[str]],
    pictures: Mapping[str, Path],
    **values: Any,
) -> Path:
    """Writes a verdict's report.html.

    Args:
        folder: Of the verdict.
        words: The command line after `run.py`.
        parts: Of the training data: folder of the run, rows, share, seed, cost.
        pictures: As for `run_report`.
        values: Of the template: `data`, `items`, `lines`, `heads`, `rows`.

    Raises:
        StoreError: The report cannot be written.
    """
    linked = [(_link(number), *cells) for number, *cells in parts]
    return _write(
        folder, "verdict.html", title=f"Verdict: {values['data']}", parts=linked,
        images=_images(pictures), command=shlex.join(words), **values,
    )  # fmt: skip


def data_of(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the jobs' data, without duplicates."""
    return list(dict.fromkeys(job["data"] for job in jobs if job.get("data")))


@cache
def environment() -> Environment:
    """Jinja2 environment of this package's templates; it escapes every value that is not `Markup`."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup, escape

    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True,
        trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip

    def breakable(cell: str) -> Markup:
        """Allows line breaks after underscores."""
        return cell if isinstance(cell, Markup) else escape(cell).replace("_", Markup("_<wbr>"))

    made.tests["number"] = lambda cell: isinstance(cell, Markup) or bool(NUMBER.fullmatch(cell))
    made.filters["breakable"] = breakable
    # As the run was started: an installed elrea has no run.py.
    made.globals["program"] = "python run.py" if Path(sys.argv[0]).name == "run.py" else "elrea run"
    return made


def _figure_cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    from markupsafe import Markup

    delta, paired = percent(row.get("delta_to_base"), signed=True), row.get("delta_ci95")
    if paired is not None and (paired[0] > 0 or paired[1] < 0):
        delta = Markup('<span class="{}">{}</span>').format(
            "up" if paired[0] > 0 else "down", delta
        )
    figures = percent(row.get("accuracy")), interval(row.get("ci95"))
    passes = f"{row['forward_passes']:,g}" if "forward_passes" in row else "-"
    return (name, *figures, delta, interval(paired, signed=True), passes)


def _link(number: str) -> Markup:
    from markupsafe import Markup

    return Markup('<a href="{}/{}">{}</a>').format(number, REPORT, number)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:,.1f}"


def _free_text(strategies: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """By strategy that wrote texts for free responses, their number and their similarity to the responses."""
    table = []
    for strategy, row in strategies.items():
        if found := row.get("free_text"):
            cells = [row.get("label", strategy), f"{found['n']:,}"]
            for name in NAMES:
                cells += [
                    percent(found[name]), interval(found[f"{name}_ci95"]),
                    interval(found[f"{name}_delta_ci95"], signed=True),
                ]  # fmt: skip
            table.append(tuple(cells))
    return table


def _loss(row: Mapping[str, Any]) -> str:
    return "-" if row.get("loss") is None else f"{row['loss']:.2f}"


def _reuse(report: Report) -> str:
    """A sentence on how many stages were made and how many were reused."""
    made, reused = (
        [stage.seconds for stage in report.stages.values() if stage.reused is was]
        for was in (False, True)
    )
    said = f"{len(made)} of {len(report.stages)} stages were made, in {sum(made):,.1f} s"
    return f"{said}; to make the others took {sum(reused):,.1f} s." if reused else f"{said}."


def _images(pictures: Mapping[str, Path]) -> list[dict[str, Any]]:
    from elrea.reporting.plots.canvas import DOTS

    images = []
    for name, caption in CAPTIONS.items():
        if (path := pictures.get(name)) is None:
            continue
        content = path.read_bytes()
        # A wide plot scrolls sideways on narrow screens, since its labels would be too small to read.
        width = int(int.from_bytes(content[16:20], "big") / DOTS * 100)
        data = base64.b64encode(content).decode("ascii")
        images.append(
            {"caption": caption, "width": width, "least": int(0.56 * width), "data": data}
        )
    return images


def _write(folder: Path, template: str, **values: Any) -> Path:
    path = folder / REPORT
    write_text(path, environment().get_template(template).render(**values))
    return path
