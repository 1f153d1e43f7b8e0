"""report.html of a run or a sweep: one file that shows what came out, with no network and no script."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from elrea.files import read_json, write_text
from elrea.tracking.screen import interval, percent

REPORT = "report.html"
CAPTIONS = {
    "accuracy": "Accuracy of every strategy.",
    "subjects": "By subject: the strategy of interest less the base adapter.",
    "clusters": "Where the training examples of each source went.",
    "features": "The training examples' gradients, two leading components.",
    "routing": "Which members answer the test prompts of each source.",
    "training": "Training losses.",
    "trend": "Accuracy against what the sweep varies; bars span the seeds.",
    "cost": "Accuracy against forward passes per prompt.",
}
"""What is said below each picture, in the order in which they stand."""

NUMBER = re.compile(r"[-+]?[\d.,]+( to [-+]?[\d.,]+)?|\[.*\]|-")
"""What stands at the right of its column."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
p.note {{ opacity: .75; margin-top: -.5rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .75rem .25rem 0; text-align: left; white-space: nowrap; }}
td.number {{ text-align: right; }}
thead th {{ border-bottom: 1px solid; }} tbody tr {{ border-bottom: 1px solid #8884; }}
.up {{ color: #00795c; }} .down {{ color: #b84a00; }}
@media (prefers-color-scheme: dark) {{ .up {{ color: #3fd0a5; }} .down {{ color: #ff9552; }} }}
figure {{ margin: 1rem 0; }} figcaption {{ opacity: .75; font-size: .9rem; }}
img {{ max-width: 100%; height: auto; background: white; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #8882; padding: .75rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def run_report(folder: Path) -> Path:
    """Writes a finished run's report.html from the files in its folder.

    Raises:
        StoreError: A file of the run is missing or damaged, or the report cannot be written.
    """
    summary = read_json(folder / "summary.json")
    status = read_json(folder / "status.json")
    rows = [_row(name, row) for name, row in summary["strategies"].items()]
    n = next(iter(summary["strategies"].values()))["n"]
    parts = [
        f"<h1>{escape(status['chosen'])} on {escape(summary['data'])}</h1>",
        f'<p class="note">{n:,} test items; seed {summary["seed"]}; backbone {escape(summary["backbone"])}</p>',
        table(["strategy", *_FIGURES], rows),
        *_pictures(folder / "plots"),
        "<h2>Stages</h2>",
        table(
            ["stage", "key", "seconds", ""],
            [
                (name, stage["key"], f"{stage['seconds']:,.1f}", "reused" if stage["reused"] else "made")
                for name, stage in summary["stages"].items()
            ],
        ),
        "<h2>Made by</h2>",
        _command([], status["words"]),
        "<p>" + escape(", ".join(f"{k} {v}" for k, v in summary["versions"].items())) + "</p>",
    ]  # fmt: skip
    return _write(folder, f"{status['chosen']}, {summary['data']}", parts)


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
        folder: Of the sweep; pictures in its `plots/` are shown.
        words: Of the command line.
        jobs: `number`, `state`, `chosen`, `seconds`, `strategies`, and `error` where one failed.
        varied: What differs between the jobs: by key the value of each.
        settings: Which of them are not over seeds.
        means: Rows over seeds: `group` (a value of each of `settings`), `strategy`, `seeds`, `accuracy`, `low`, `high`
            (least and most of a seed) and `delta` (to base), shares of 1.
    """
    done = sum(job["state"] == "done" for job in jobs)
    overall = [
        (*row["group"], row["strategy"], str(row["seeds"]), percent(row["accuracy"]),
         f"{percent(row['low'])} to {percent(row['high'])}", percent(row["delta"], signed=True))
        for row in means
    ]  # fmt: skip
    each = []
    for i, job in enumerate(jobs):
        row = job["strategies"].get(job["chosen"], {})
        link = Raw(f'<a href="{escape(job["number"])}/{REPORT}">{escape(job["number"])}</a>')
        state = (
            job["state"] if job["state"] == "done" else f"{job['state']}: {job.get('error', '')}"
        )
        values = [keys[i] for keys in varied.values()]
        each.append((link if row else job["number"], *values, *_row(job["chosen"], row)[:3], state))
    parts = [
        f"<h1>Sweep: {done} of {len(jobs)} jobs</h1>",
        *_pictures(folder / "plots"),
        "<h2>Over seeds</h2>",
        table([*settings, "strategy", "seeds", "accuracy %", "seeds from, to", "to base, points"], overall),
        "<h2>Jobs</h2>",
        table(["job", *varied, "strategy", "accuracy %", "95 % interval", "state"], each),
        "<h2>Made by</h2>",
        _command(["-m"], words),
    ]  # fmt: skip
    return _write(folder, f"Sweep of {len(jobs)} jobs", parts)


class Raw(str):
    """HTML that is not escaped again."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table that scrolls sideways where it is too wide; every cell is escaped."""

    def cell(value: str) -> str:
        shown = value if isinstance(value, Raw) else escape(value)
        number = isinstance(value, Raw) or NUMBER.fullmatch(value)
        return f'<td class="number">{shown}</td>' if number else f"<td>{shown}</td>"

    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


_FIGURES = ["accuracy %", "95 % interval", "to base, points", "95 % interval, paired", "passes"]


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    delta, paired = percent(row.get("delta_to_base"), signed=True), row.get("delta_ci95")
    if paired is not None and (paired[0] > 0 or paired[1] < 0):
        delta = Raw(f'<span class="{"up" if paired[0] > 0 else "down"}">{escape(delta)}</span>')
    figures = percent(row.get("accuracy")), interval(row.get("ci95"))
    passes = f"{row['forward_passes']:,g}" if "forward_passes" in row else "-"
    return (name, *figures, delta, interval(paired, signed=True), passes)


def _pictures(folder: Path) -> list[str]:
    found = []
    for name, caption in CAPTIONS.items():
        path = folder / f"{name}.png"
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
            found.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")
    return found


def _command(flags: Sequence[str], words: Sequence[str]) -> str:
    return f"<pre>python run.py {escape(shlex.join([*flags, *words]))}</pre>"


def _write(folder: Path, title: str, parts: Iterable[str]) -> Path:
    path = folder / REPORT
    write_text(path, PAGE.format(title=escape(title), body="\n".join(parts)))
    return path
