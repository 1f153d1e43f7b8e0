"""report.html of a run or a sweep: one file that shows what came out, with no network and no script."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from elrea.reporting.plots.canvas import DOTS
from elrea.reporting.terminal import interval, percent
from elrea.store.files import read_json, write_text

REPORT = "report.html"
CAPTIONS = {
    "accuracy": "Accuracy of every strategy.",
    "subjects": "By subject: the strategy of interest less the base adapter.",
    "clusters": "Where the training examples of each source went.",
    "features": "The training examples' features, two leading components.",
    "routing": "Which members answer the test prompts of each source.",
    "training": "Training losses.",
    "trend": "Accuracy against what the sweep varies, mean over seeds; bars: 95 % intervals.",
    "gain": "Gain on the base adapter against what the sweep varies; bars: paired 95 % intervals.",
    "cost": "Accuracy against forward passes per prompt.",
}
"""What is said below each picture, in the order in which they stand."""

NUMBER = re.compile(r"[-+]?[\d.,]+( to [-+]?[\d.,]+)?|\[.*\]|-")
"""What stands at the right of its column."""

LOSS = (
    "Loss: nats per token of the right answer under the mixed logits. Members' weights need not sum to 1: uniform's "
    "sum to the number of members, elrea's to 1 + w_base. That makes the mix sharper, and its loss of another scale "
    "than one model's; which answer is the likeliest does not depend on it."
)
"""Below a table with losses."""

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
p.small {{ opacity: .75; font-size: .85rem; max-width: 44rem; }}
p.note {{ opacity: .75; margin-top: -.5rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .75rem .25rem 0; text-align: left; white-space: nowrap; }}
th {{ vertical-align: bottom; }}
.number {{ text-align: right; }}
@media (min-width: 40rem) {{ wbr {{ display: none; }} }}
thead th {{ border-bottom: 1px solid; }} tbody tr {{ border-bottom: 1px solid #8884; }}
.up {{ color: #00795c; }} .down {{ color: #b84a00; }}
@media (prefers-color-scheme: dark) {{ .up {{ color: #3fd0a5; }} .down {{ color: #ff9552; }} }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.5rem 2rem; }}
figure {{ margin: 0; overflow-x: auto; }} figcaption {{ opacity: .75; font-size: .9rem; }}
img {{ max-width: 100%; height: auto; background: white; }}
@media (max-width: 40rem) {{
  body {{ padding: .75rem; }} table {{ font-size: .7rem; }}
  th, td {{ padding-right: .3rem; }} th, .number {{ white-space: normal; }}
}}
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
    rows = [(*_row(name, row), _loss(row)) for name, row in summary["strategies"].items()]
    stages = summary["stages"]
    n = next(iter(summary["strategies"].values()))["n"]
    parts = [
        f"<h1>{escape(status['chosen'])} on {escape(summary['data'])}</h1>",
        f'<p class="note">{n:,} test items; seed {summary["seed"]}; backbone {escape(summary["backbone"])}</p>',
        table(["strategy", *_FIGURES, "loss"], rows),
        f'<p class="small">{escape(LOSS)}</p>',
        *_pictures(folder / "plots"),
        "<h2>Plan</h2>",
        f"<p>{_reuse(stages)}</p>",
        table(
            ["stage", "key", "seconds", ""],
            [
                (name, stage["key"], f"{stage['seconds']:,.1f}", "reused" if stage["reused"] else "made")
                for name, stage in stages.items()
            ],
        ),
        "<h2>Command</h2>",
        _command(status["command"]),
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
        jobs: `number`, `state`, `chosen`, `seconds`, `data`, `strategies`, and `error` where one failed.
        varied: What differs between the jobs: by key the value of each.
        settings: Which of them are not over seeds.
        means: Rows over seeds, as `elrea.reporting.sweeps.means` makes them.
    """
    done = sum(job["state"] == "done" for job in jobs)
    overall = [
        (*row["group"], row["strategy"], str(row["seeds"]), percent(row["accuracy"]), interval(row["accuracy_ci95"]),
         percent(row["delta"], signed=True), interval(row["delta_ci95"], signed=True),
         " to ".join(percent(end) for end in row["accuracy_seeds"]))
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
        f'<p class="note">{escape("; ".join(data_of(jobs)))}</p>',
        *_pictures(folder / "plots"),
        "<h2>Over seeds</h2>",
        table([*settings, "strategy", "seeds", *_FIGURES[:4], "seeds from, to"], overall),
        '<p class="small">Intervals are the mean of the seeds\' own: they say what other questions would change.</p>',
        "<h2>Jobs</h2>",
        table(["job", *varied, "strategy", "accuracy %", "95 % interval", "state"], each),
        "<h2>Command</h2>",
        _command(words),
    ]  # fmt: skip
    return _write(folder, f"Sweep of {len(jobs)} jobs", parts)


class Raw(str):
    """HTML that is not escaped again."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table that scrolls sideways where it is too wide; every cell is escaped."""
    rows = list(rows)

    def cell(value: str) -> str:
        shown = value if isinstance(value, Raw) else escape(value)
        # Long names may be broken where their words end.
        shown = shown if isinstance(value, Raw) else shown.replace("_", "_<wbr>")
        return f'<td class="number">{shown}</td>' if _is_number(value) else f"<td>{shown}</td>"

    columns = list(zip(*rows, strict=True)) or [()] * len(heads)
    right = [bool(cells) and all(map(_is_number, cells)) for cells in columns]
    top = "".join(
        f"<th{' class=number' * at}>{escape(head)}</th>"
        for head, at in zip(heads, right, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _is_number(value: str) -> bool:
    return isinstance(value, Raw) or bool(NUMBER.fullmatch(value))


_FIGURES = ["accuracy %", "95 % interval", "to base, points", "95 % interval, paired", "passes"]


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    delta, paired = percent(row.get("delta_to_base"), signed=True), row.get("delta_ci95")
    if paired is not None and (paired[0] > 0 or paired[1] < 0):
        delta = Raw(f'<span class="{"up" if paired[0] > 0 else "down"}">{escape(delta)}</span>')
    figures = percent(row.get("accuracy")), interval(row.get("ci95"))
    passes = f"{row['forward_passes']:,g}" if "forward_passes" in row else "-"
    return (name, *figures, delta, interval(paired, signed=True), passes)


def data_of(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the data that jobs were on, each once."""
    return list(dict.fromkeys(job["data"] for job in jobs if job.get("data")))


def _loss(row: Mapping[str, Any]) -> str:
    return "-" if row.get("loss") is None else f"{row['loss']:.2f}"


def _reuse(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """What was made and what was there already, in words."""
    made, reused = (
        [stage["seconds"] for stage in stages.values() if stage["reused"] is was]
        for was in (False, True)
    )
    return (
        f"{len(made)} stages were made in {sum(made):,.1f} s; {len(reused)} were reused, "
        f"which had taken {sum(reused):,.1f} s."
    )


def _pictures(folder: Path) -> list[str]:
    found = []
    for name, caption in CAPTIONS.items():
        path = folder / f"{name}.png"
        if path.is_file():
            content = path.read_bytes()
            data = base64.b64encode(content).decode("ascii")
            # Where a wide picture's words would be too small to read, its figure scrolls sideways instead.
            width = int(int.from_bytes(content[16:20], "big") / DOTS * 100)
            sizes = f'width="{width}" style="min-width: {int(0.56 * width)}px"'
            image = f'<img alt="{escape(caption)}" {sizes} src="data:image/png;base64,{data}">'
            found.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")
    return ["<h2>Pictures</h2>", '<div class="figures">', *found, "</div>"] if found else []


def _command(words: Sequence[str]) -> str:
    return f"<pre>python run.py {escape(shlex.join(words))}</pre>"


def _write(folder: Path, title: str, parts: Iterable[str]) -> Path:
    path = folder / REPORT
    write_text(path, PAGE.format(title=escape(title), body="\n".join(parts)))
    return path
