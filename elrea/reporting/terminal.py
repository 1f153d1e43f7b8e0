"""What the user reads on the screen: the plan before a run and the table of results after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from elrea.reporting.report import Report

_STATES = {"reused": "green", "to do": "yellow", "resumes": "cyan"}


def results_table(
    strategies: Mapping[str, Mapping[str, Any]], title: str = "", caption: str = ""
) -> Table:
    """The table of results, one row per strategy in the given order.

    Args:
        strategies: by name, the entries of `summary.json`: `accuracy` and `ci95` (low, high) as
            shares of 1, `delta_to_base` and `delta_ci95` likewise, `forward_passes` per prompt.
            What is missing or None shows as "-". Where there are several `tasks`, `macro`, the mean of their
            accuracies, has a column too.
        title: above the table.
        caption: below it, e.g. "built-in exam, not MMLU".

    Returns:
        A Rich table that fits 100 columns. A difference whose interval leaves out zero is green
        or red, for those who see colours; the numbers say the same.
    """
    table = _table(title, caption)
    table.add_column("strategy", overflow="fold", max_width=30)
    several = any(len(row.get("tasks") or ()) > 1 for row in strategies.values())
    table.add_column("micro %" if several else "accuracy %", justify="right")
    table.add_column("95 % interval", justify="right")
    if several:  # one more column has to fit into the same width
        table.add_column("macro %", justify="right")
    table.add_column("to base" if several else "to base, points", justify="right")
    table.add_column("95 %, paired" if several else "95 % interval, paired", justify="right")
    table.add_column("passes/prompt", justify="right")
    for name, row in strategies.items():
        delta, paired = row.get("delta_to_base"), row.get("delta_ci95")
        style = _verdict(paired)
        table.add_row(
            name,
            percent(row.get("accuracy")),
            interval(row.get("ci95")),
            *([percent(row.get("macro"))] if several else []),
            _styled(percent(delta, signed=True), style),
            _styled(interval(paired, signed=True), style),
            _count(row.get("forward_passes")),
        )
    return table


def plan_table(rows: Iterable[tuple[str, str, str]], title: str = "Plan") -> Table:
    """The plan of a run.

    Args:
        rows: (stage, key, state) in order; the states "reused", "to do" and "resumes" are coloured.
        title: above the table.

    Returns:
        A Rich table that fits 100 columns.
    """
    from rich.text import Text

    table = _table(title)
    table.add_column("stage", overflow="fold")
    table.add_column("key", no_wrap=True)
    table.add_column("state", overflow="fold")
    for stage, key, state in rows:
        table.add_row(stage, Text(key, style="dim"), _styled(state, _STATES.get(state, "")))
    return table


def forecast_table(rows: Iterable[tuple[str, str]]) -> Table:
    """What a run is expected to take: what is counted, and the figure."""
    table = _table("Expected")
    table.add_column("what", no_wrap=True)
    table.add_column("how much", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def sweep_table(jobs: Sequence[Mapping[str, Any]], varied: Mapping[str, Sequence[str]]) -> Table:
    """How the jobs of a sweep ended, a row per job.

    Args:
        jobs: `number`, `state`, `chosen` (name of the strategy of interest) and `strategies`, the entries of
            `summary.json`.
        varied: What differs between them: by key the value of each job.

    Returns:
        A Rich table that fits 100 columns.
    """
    table = _table("Jobs")
    table.add_column("job", justify="right")
    for key in varied:
        table.add_column(key.rpartition(".")[2], overflow="fold")
    table.add_column("strategy", overflow="fold", max_width=30)
    for name in ("accuracy %", "to base, points", "95 % interval, paired"):
        table.add_column(name, justify="right")
    for i, job in enumerate(jobs):
        row = job["strategies"].get(job["chosen"], {})
        paired = row.get("delta_ci95")
        style = _verdict(paired)
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


def paired_table(found: Mapping[str, Any]) -> Table:
    """Two strategies compared, a row per seed and one for all (`elrea.commands.compare`).

    Returns:
        A Rich table that fits 100 columns.
    """
    a, b = found["a"], found["b"]
    caption = (
        f"{a} less {b}, in points; {found['items']:,} items; p: McNemar's exact test over items"
    )
    table = _table(f"{a} and {b}", caption)
    table.add_column("seed", justify="right")
    for name in (f"{a} %", f"{b} %", "difference", "95 %, paired", f"only {a}", f"only {b}", "p"):
        table.add_column(name, justify="right", overflow="fold")
    for row in [*found["seeds"], found["pooled"]]:
        style = _verdict(row["ci95"])
        table.add_row(
            str(row.get("seed", "all")),
            percent(row["a"]),
            percent(row["b"]),
            _styled(percent(row["difference"], signed=True), style),
            _styled(interval(row["ci95"], signed=True), style),
            f"{row['only_a']:,}",
            f"{row['only_b']:,}",
            f"{row['p']:.2g}",
        )
    return table


def notices(report: Report) -> Iterator[str]:
    """What a reader should know besides the table, a line each."""
    from elrea.reporting.summary import early_stops, routing_figures, shot_figures

    yield from report.warnings
    if (agrees := routing_figures(report).get("distilled", {})).get("prompts"):
        yield (
            f"Distilled router and {agrees['prompts']:,} test prompts' gradients: nearest cluster the same for "
            f"{100 * agrees['top1']:.1f} %,\nrank correlation {agrees['spearman']:.3f}, "
            f"w_base off by {agrees['w_base']:.3f}"
        )
    for name, stop in early_stops(report).items():
        yield (
            f"{name}: {stop['trained']} epochs trained, the one after epoch {stop['kept']} kept (loss on dev "
            f"{stop['dev_loss']:.4g})"
        )
    if report.dropped:
        yield f"{len(report.dropped)} training examples were too long and left out (backbone.max_length)"
    if long := report.too_long:
        yield f"{len(long)} test prompts were too long and count as wrong: {_first(long)}"
    shots = shot_figures(report).get("test_shots", {})
    if shots.get("prompts_with_fewer"):
        yield (
            f"{shots['prompts_with_fewer']:,} test prompts had no room for all {shots['wanted']} solved examples: "
            f"{shots['mean']:.1f} on average (backbone.max_length)"
        )
    unparsed = {n: row["unparsed"] for n, row in report.strategies.items() if row.get("unparsed")}
    if unparsed:
        each = ", ".join(f"{count:,} of {name}" for name, count in unparsed.items())
        yield f"Texts without an answer count as wrong (predictions.jsonl has them): {each}"
    effects = {"train": "are in no cluster", "test": "weigh all experts alike"}
    for split, effect in effects.items():
        if ids := report.skipped[split]:
            yield f"{len(ids)} {split} prompts have a zero or non-finite gradient and {effect}: {_first(ids)}"


def _first(ids: Sequence[str]) -> str:
    """The first three of them."""
    return ", ".join(ids[:3]) + (" ..." if len(ids) > 3 else "")


def _table(title: str, caption: str = "") -> Table:
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


def _styled(text: str, style: str) -> Any:
    from rich.text import Text

    return Text(text, style=style)


def _verdict(interval: Sequence[float] | None) -> str:
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
    """A number of many digits to four of them; other words as they are."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value


def _count(passes: float | None) -> str:
    return "-" if passes is None else f"{passes:,g}"
