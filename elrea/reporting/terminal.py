"""Tables and lines for the terminal: plan and forecast before a run, results after it, jobs of a sweep."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from elrea.evaluation.similarity import NAMES
from elrea.evaluation.text_figures import TEXT
from elrea.reporting.progress import WIDTH

if TYPE_CHECKING:
    from rich.table import Table

    from elrea.reporting.report import DevGate, Report

SHARPER = (
    "Losses of rows that mix members are those of a sum of logits, which is sharper than its parts; with "
    "evaluation.mean_logits=true they compare."
)
"""Said below a table with losses."""
MOST_ROWS = 60
"""A table of means with more rows is left to report.html."""
_STATES = {"reused": "green", "to do": "yellow", "resumes": "cyan"}


def results_table(
    strategies: Mapping[str, Mapping[str, Any]],
    title: str = "",
    caption: str = "",
    *,
    loss: bool = False,
) -> Table:
    """The table of results, one row per strategy in the given order.

    Args:
        strategies: By name, the rows of summary.json: `accuracy`, `ci95` (low, high), `delta_to_base` and
            `delta_ci95` as shares of 1, `forward_passes` per prompt, and `label` where
            the name shown is another. Missing values and None are shown as "-".
            With several `tasks` there is a column for `macro`, the mean of their accuracies; with choices of different
            lengths, one for `acc_norm`, the accuracy by likelihood per character.
        loss: Whether to show the loss (nats per token), if there is one: for items without choices it says most.
        title: Above the table.
        caption: Below the table, e.g. "built-in exam, not MMLU".

    Returns:
        A Rich table that fits 100 columns. A difference whose interval excludes zero is green or red.
    """
    table = plain_table(title, caption)
    table.add_column("strategy", overflow="fold", max_width=30)
    several = any(len(row.get("tasks") or ()) > 1 for row in strategies.values())
    loss = loss and any(row.get("loss") is not None for row in strategies.values())
    table.add_column("micro %" if several else "accuracy %", justify="right")
    table.add_column("95 % interval", justify="right")
    if several:  # one more column has to fit into the same width
        table.add_column("macro %", justify="right")
    norm = any("acc_norm" in row for row in strategies.values())
    if norm:
        table.add_column("acc_norm %", justify="right")
    tight = several or norm
    table.add_column("to base" if tight else "to base, points", justify="right")
    table.add_column("95 %, paired" if tight else "95 % interval, paired", justify="right")
    if loss:
        table.add_column("loss", justify="right")
    table.add_column("passes" if loss or norm else "passes/prompt", justify="right")
    for name, row in strategies.items():
        delta, paired = row.get("delta_to_base"), row.get("delta_ci95")
        style = _colour(paired)
        table.add_row(
            row.get("label", name),
            percent(row.get("accuracy")),
            interval(row.get("ci95")),
            *([percent(row.get("macro"))] if several else []),
            *([percent(row.get("acc_norm"))] if norm else []),
            _styled(percent(delta, signed=True), style),
            _styled(interval(paired, signed=True), style),
            *(["-" if row.get("loss") is None else f"{row['loss']:.3f}"] if loss else []),
            _count(row.get("forward_passes")),
        )
    return table


def free_text_table(strategies: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """How similar the texts for free responses are to the responses, one row per strategy that wrote any.

    Args:
        strategies: By name, the rows of summary.json; only those with `free_text` are shown.

    Returns:
        A Rich table that fits 100 columns; None if there is no such text.
    """
    rows = {name: row["free_text"] for name, row in strategies.items() if row.get("free_text")}
    if not rows:
        return None
    counts = sorted({row["n"] for row in rows.values()})
    number = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    table = plain_table("Free responses", f"{number} texts; in points of 100")
    table.add_column("strategy", overflow="fold", max_width=30)
    for name in NAMES.values():
        table.add_column(name, justify="right")
        table.add_column("95 %", justify="right")
    for name, row in rows.items():
        cells = []
        for measure in NAMES:
            style = _colour(row[f"{measure}_delta_ci95"])
            cells += [_styled(percent(row[measure]), style), interval(row[f"{measure}_ci95"])]
        table.add_row(row.get("label", name), *cells)
    return table


def plan_table(
    rows: Iterable[tuple[str, str, str]],
    title: str = "Plan",
    times: Mapping[str, float | None] | None = None,
) -> Table:
    """The plan of a run.

    Args:
        rows: (stage, key, state) in order; the states "reused", "to do" and "resumes" are coloured.
        title: Above the table.
        times: Expected seconds by stage, for a further column; None where they are not known.

    Returns:
        A Rich table that fits 100 columns.
    """
    from rich.text import Text

    from elrea.reporting.progress import duration

    table = plain_table(title)
    table.add_column("stage", overflow="fold")
    table.add_column("key", no_wrap=True)
    if times:
        table.add_column("expected time", justify="right")
    table.add_column("state", overflow="fold")
    for stage, key, state in rows:
        cells: list[Any] = [stage, Text(key, style="dim")]
        if times:
            seconds = times.get(stage)
            cells.append("-" if seconds is None else duration(seconds))
        table.add_row(*cells, _styled(state, _STATES.get(state, "")))
    return table


def forecast_table(rows: Iterable[tuple[str, str]], title: str = "Expected") -> Table:
    """The forecast of a run.

    Args:
        rows: (name, figure), as `elrea.pipeline.forecast.forecast` returns them.
        title: Above the table.
    """
    table = plain_table(title)
    table.add_column("what", no_wrap=True)
    table.add_column("how much", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def cluster_figures(sizes: Sequence[int], quality: Iterable[tuple[str, str]]) -> Table:
    """The figures of a clustering.

    Args:
        sizes: Training examples of each cluster.
        quality: (name, figure), as `elrea.reporting.run_tables.quality_in_words` returns them.
    """
    table = plain_table("Clusters")
    table.add_column("what", no_wrap=True)
    table.add_column("figure", overflow="fold")
    table.add_row("training examples in each", ", ".join(f"{size:,}" for size in sizes))
    for row in quality:
        table.add_row(*row)
    return table


def sweep_table(jobs: Sequence[Mapping[str, Any]], varied: Mapping[str, Sequence[str]]) -> Table:
    """How the jobs of a sweep ended, a row per job.

    Args:
        jobs: With `number`, `state`, `chosen` (name of the chosen strategy) and `strategies`, the rows of
            summary.json.
        varied: Values that differ between jobs: by key, the value in each job.

    Returns:
        A Rich table that fits 100 columns.
    """
    table = plain_table("Jobs")
    table.add_column("job", justify="right")
    for key in varied:
        table.add_column(key.rpartition(".")[2], overflow="fold")
    table.add_column("strategy", overflow="fold", max_width=30)
    for name in ("accuracy %", "to base, points", "95 % interval, paired"):
        table.add_column(name, justify="right")
    for i, job in enumerate(jobs):
        row = job["strategies"].get(job["chosen"], {})
        paired = row.get("delta_ci95")
        style = _colour(paired)
        done = job["state"] == "done"
        table.add_row(
            job["number"],
            *(_short(values[i]) for values in varied.values()),
            job["chosen"],
            percent(row.get("accuracy")) if done else _styled(job["state"], "red"),
            _styled(percent(row.get("delta_to_base"), signed=True), style),
            _styled(interval(paired, signed=True), style),
        )
    return table


def means_table(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Table:
    """Every strategy's mean over the seeds of a sweep, a row for each setting and strategy.

    Args:
        rows: From `elrea.reporting.sweep_report.seed_means`.
        keys: Names of the values in their `group`.

    Returns:
        A Rich table that fits 100 columns.
    """
    table = plain_table("Over seeds", "95 % intervals over seeds and test items")
    for key in keys:
        table.add_column(key.rpartition(".")[2], overflow="fold")
    table.add_column("strategy", overflow="fold", max_width=30)
    for name in ("seeds", "accuracy %", "95 % interval", "to base", "95 %, paired"):
        table.add_column(name, justify="right")
    for row in rows:
        style = _colour(row["delta_ci95"])
        table.add_row(
            *(_short(value) for value in row["group"]),
            row["strategy"], str(row["seeds"]), percent(row["accuracy"]), interval(row["accuracy_ci95"]),
            _styled(percent(row["delta"], signed=True), style),
            _styled(interval(row["delta_ci95"], signed=True), style),
        )  # fmt: skip
    return table


def wrapped(line: str) -> str:
    """Breaks a text between words into lines of at most 100 columns; further lines are indented."""
    return "\n".join(
        textwrap.fill(
            each, WIDTH, subsequent_indent="  ", break_long_words=False,
            break_on_hyphens=False,
        )
        for each in line.split("\n")
    )  # fmt: skip


def notices(report: Report) -> Iterator[str]:
    """Lines to print below the results table: warnings, early stops, dropped and too long examples."""
    from elrea.reporting.summary import early_stops, routing_figures, shot_figures

    yield from report.warnings
    texts = {name: row[TEXT] for name, row in report.strategies.items() if row.get(TEXT)}
    if texts:
        each = ", ".join(f"{name} {_nats(row['loss'])}" for name, row in texts.items())
        yield (
            f"{texts['base']['n']:,} test items are plain text, which has a loss and no right answer: accuracy leaves "
            f"them out.\nTheir loss, nats per token: {each}"
        )
    if (agrees := routing_figures(report).get("distilled", {})).get("prompts"):
        yield (
            f"Distilled router and {agrees['prompts']:,} test prompts' gradients: nearest cluster the same for "
            f"{100 * agrees['top1']:.1f} %, rank correlation {agrees['spearman']:.3f}, "
            f"w_base off by {agrees['w_base']:.3f}"
        )
    yield from gate_lines(report)
    for name, stop in early_stops(report).items():
        yield (
            f"{name}: {stop['trained']} epochs trained, epoch {stop['kept']} kept (dev loss {stop['dev_loss']:.4g})"
        )
    if normed := [row["acc_n"] for row in report.strategies.values() if "acc_norm" in row]:
        yield (
            f"acc_norm: by the choices' likelihood per character, as in lm-eval, for {normed[0]:,} items with choices"
        )
    if report.dropped:
        yield f"{len(report.dropped)} training examples were too long and were dropped (backbone.max_length)"
    if long := report.too_long:
        yield f"{len(long)} test prompts were too long and count as wrong: {_first(long)}"
    shots = shot_figures(report).get("test_shots", {})
    if shots.get("prompts_with_fewer"):
        yield (
            f"{shots['prompts_with_fewer']:,} test prompts were too long for all {shots['wanted']} solved examples: "
            f"{shots['mean']:.1f} on average (backbone.max_length)"
        )
    unparsed = {n: row["unparsed"] for n, row in report.strategies.items() if row.get("unparsed")}
    if unparsed:
        each = ", ".join(f"{count:,} of {name}" for name, count in unparsed.items())
        yield f"Texts without an answer count as wrong (predictions.jsonl has them): {each}"
    unclosed = {
        n: row["unclosed_think"]
        for n, row in report.strategies.items()
        if row.get("unclosed_think")
    }
    if unclosed:
        each = ", ".join(f"{count:,} of {name}" for name, count in unclosed.items())
        yield f"Of these, texts that end inside a think block (raise evaluation.max_new_tokens): {each}"
    effects = {"train": "are in no cluster", "test": "are near to no cluster"}
    for split, effect in effects.items():
        if ids := report.skipped[split]:
            yield f"{len(ids)} {split} prompts have no feature (zero or not finite) and {effect}: {_first(ids)}"


def gate_lines(report: Report) -> Iterator[str]:
    """By strategy that dev decided, in which clusters experts serve, and by what mean difference to the trunk."""
    for name, gate in report.gates.items():
        each = [(c, verdict) for c, verdict in enumerate(gate.clusters)]
        count = sum(verdict.examples for _, verdict in each)
        on = ", ".join(f"{c} ({difference(gate, v.difference)})" for c, v in each if v.serves)
        unit = "points of accuracy" if gate.measure == "correct" else "nats per token"
        unused = f"; {gate.left_out} are too long, or have no feature" if gate.left_out else ""
        yield (
            f"{name}: by {count:,} dev examples, experts serve in {sum(v.serves for _, v in each)} of {len(each)} "
            f"clusters" + (f": {on} {unit}" if on else "") + unused
        )


def difference(gate: DevGate, gain: float) -> str:
    """A gain over the trunk: in points, or in nats per token."""
    return percent(gain, signed=True) if gate.measure == "correct" else f"{gain:+.4f}"


def _nats(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _first(ids: Sequence[str]) -> str:
    """The first three ids."""
    return ", ".join(ids[:3]) + (" ..." if len(ids) > 3 else "")


def plain_table(title: str, caption: str = "") -> Table:
    """An empty table in the style of all tables."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    return Table(
        title=Text(title, style="bold") if title else None,
        caption=Text(caption, style="dim") if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )


def coloured(text: str, bounds: Sequence[float] | None) -> Any:
    """A cell that is green if an interval is above zero, and red if it is below."""
    return _styled(text, _colour(bounds))


def _styled(text: str, style: str) -> Any:
    from rich.text import Text

    return Text(text, style=style)


def _colour(interval: Sequence[float] | None) -> str:
    """Green for an interval above zero, red for one below zero."""
    if interval is None:
        return ""
    low, high = interval
    return "green" if low > 0 else "red" if high < 0 else ""


def percent(share: float | None, *, signed: bool = False) -> str:
    """A share of 1 in points, to a tenth; "-" for None."""
    if share is None:
        return "-"
    points = round(100 * share, 1) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return f"{points:+.1f}" if signed else f"{points:.1f}"


def interval(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    """(low, high), shares of 1, in points; "-" for None."""
    if bounds is None:
        return "-"
    low, high = bounds
    return f"[{percent(low, signed=signed)}, {percent(high, signed=signed)}]"


def _short(value: str) -> str:
    """Rounds a long number to four significant digits; returns other text unchanged."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value


def _count(passes: float | None) -> str:
    return "-" if passes is None else f"{passes:,g}"
