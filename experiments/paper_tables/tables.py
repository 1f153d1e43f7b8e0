"""Makes every table of the paper: runs the missing sweeps, and writes our results beside the paper's numbers.

    python experiments/paper_tables/tables.py --seeds 0,1,2 math.root=<folder> mmlu.root=<folder> bbh.root=<folder> \\
      train.root=<folder less_data>                        # the paper's setting: one GPU, days
    python experiments/paper_tables/tables.py --plan      # prints what each run will take; downloads nothing
    python experiments/paper_tables/tables.py --small     # tries the script on the built-in exam: minutes

Data without a folder is downloaded from the hub. `math.`, `mmlu.`, `bbh.` and `train.root=` name folders of data; any
other word with a point is a setting for every run (`training.max_steps=10`). Each column is a sweep over seeds in
<--out>/<column>. The same command resumes where it stopped, and columns share their common stages. Writes tables.md and
results.json: our accuracy, every seed, and what ELREA scores above each row, with the paper's one run beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.reporting.compare_markdown import LEGEND, markdown
from elrea.reporting.compare_table import (
    Comparison,
    Scores,
    command_line,
    compare,
    part,
    save,
    scores_of,
)
from elrea.reporting.runs import FinishedRun, read_run
from elrea.reporting.sweeps import read_jobs
from elrea.store.files import read_json, write_text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAPER = HERE / "paper.json"
COST = ROOT / "experiments" / "benchmarks" / "inference.json"
LEADER = "elrea"
SMALL = [
    "scale=small", "features.projection=sjlt", "data.boards=2", "data.train_per_board=60", "data.dev_per_board=4",
    "data.test_per_board=40", "clustering.k=2", "clustering.min_size=8", "trainer.threads=1",
]  # fmt: skip
MOST_TASKS = 4
"""Tasks that have a column each in tables.md; of more, results.json alone has all."""
NOT_THE_PAPERS = "**Tried on the built-in exam and backbone: none of this is the paper's setting.**"


def words_of(name: str, column: dict[str, Any], given: argparse.Namespace) -> list[str]:
    """Arguments of `run.py` for a column of a table."""
    scores = f"evaluation.strategies=[{','.join(column['accuracy'])}]"
    if given.small:
        own = [w for w in column["words"] if not w.startswith("features.projection.d=")]
        setting = [w for w in SMALL if not w.startswith("features.projection=")]
        if "d512" in name:
            setting.append("features.projection.d=64")
    else:
        own = [*column["words"], *column.get("paper_words", [])]
        setting = ["scale=paper"]
    words = [*own, *setting, f"ensemble={LEADER}", scores, f"seed={given.seeds}"]
    bench = name.split("_")[0].replace("maths", "math")
    for word in given.words:
        kind, _, rest = word.partition(".")
        if kind in ("math", "mmlu", "bbh"):
            words += [f"data.{rest}"] * (kind == bench)
        elif kind == "train" and rest.startswith("root="):
            words += [f"data.train.{rest}"] * (bench != "math")
        else:
            words.append(word)
    return words


def run(name: str, column: dict[str, Any], given: argparse.Namespace) -> int:
    """Runs a column's sweep, or resumes it; returns the exit code."""
    words = words_of(name, column, given)
    print(f"\n== {column['title']}\n   python run.py -m {' '.join(words)}", flush=True)
    if given.plan:
        words = [f"seed={given.seeds.split(',')[0]}" if w.startswith("seed=") else w for w in words]
        line = [*words, "plan=true", f"hydra.run.dir={given.out / 'plans' / name}"]
    else:
        line = ["-m", *words, f"hydra.sweep.dir={given.out / name}"]
    return subprocess.run([sys.executable, str(ROOT / "run.py"), *line], check=False).returncode


def scores_in(name: str, column: dict[str, Any], folder: Path) -> tuple[Scores, list[FinishedRun]]:
    """Our scores of a column, from the finished jobs of its sweep, in the order of the paper's rows.

    Raises:
        DataError: A seed appears twice, or a job lacks one of the column's strategies.
    """
    jobs = [job for job in read_jobs(folder) if job["state"] == "done"] if folder.is_dir() else []
    runs = [read_run(folder / job["number"]) for job in jobs]
    for run in runs:
        if missing := [row for row in column["accuracy"] if row not in run.correct]:
            raise DataError(f"{run.folder}: did not score {missing[0]}; give a new folder as --out")
    if not runs:
        return Scores([], {}, (name,)), []
    found = scores_of(runs, (name,))
    return replace(found, items={row: found.items[row] for row in column["accuracy"]}), runs


def tasks_of(runs: Sequence[FinishedRun], name: str) -> dict[str, float]:
    """A strategy's accuracy per task (MATH-Combined's four sources, BBH's tasks, MMLU's subjects) in %, the mean over
    seeds; empty where there is one task."""
    found = [run.figures[name].get("tasks", {}) for run in runs]
    if not found or len(found[0]) < 2:
        return {}
    means = {task: np.mean([each[task]["accuracy"] for each in found]) for task in found[0]}
    return {task: round(100 * float(mean), 2) for task, mean in means.items()}


def gathered(
    columns: dict[str, Any], out: Path, command: str
) -> tuple[Comparison, dict[str, dict[str, dict[str, float]]]]:
    """Our comparison, a setting per column, and by column and strategy the accuracy per task."""
    found = {name: scores_in(name, column, out / name) for name, column in columns.items()}
    data = dict.fromkeys(run.data for _, runs in found.values() for run in runs)
    table = compare(
        [scores for scores, _ in found.values() if scores.items],
        command=command, data="; ".join(data), settings=["column"], leader=LEADER,
    )  # fmt: skip
    tasks = {
        name: {row: tasks_of(runs, row) for row in scores.items}
        for name, (scores, runs) in found.items()
    }
    return table, tasks


def chapter(column: dict[str, Any], table: Comparison, tasks: dict[str, dict[str, float]]) -> str:
    """A column of the paper as a table of its own, ours beside the paper's numbers.

    Args:
        column: Of paper.json.
        table: Our rows of this column; none where it has not run.
        tasks: By strategy, our accuracy per task.
    """
    paper = column["accuracy"]
    if not table.rows:
        lines = [f"### {column['title']} (not run)", "", "| strategy | paper |", "|---|---|"]
        return "\n".join([*lines, *(f"| {name} | {value:.2f} |" for name, value in paper.items())])
    rows = [row.strategy for row in table.rows]
    extra = {
        "paper": [f"{paper[row]:.2f}" for row in rows],
        f"paper, {LEADER} minus it": [
            "-" if row == LEADER else f"{paper[LEADER] - paper[row]:+.2f}" for row in rows
        ],
    }
    shown = list(tasks.get(rows[0], {}))
    if 1 < len(shown) <= MOST_TASKS:
        extra |= {task: [f"{tasks[row][task]:.2f}" for row in rows] for task in shown}
    size = f"{table.rows[0].items:,} items, {len(table.rows[0].seeds)} seeds"
    return f"### {column['title']} ({size})\n\n{markdown(table, extra, digits=2)}"


def cost(paper: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The cost table, as Markdown and as figures; ours come from `inference.py --paper gemma-2b` of the benchmarks."""
    ours = ((read_json(COST) or {}).get("paper_toy") or {}).get("figures", {})
    lines = [f"### {paper['title']}", "", "| | ours | paper |", "|---|---|---|"]
    for name, value in paper["figures"].items():
        own = ours.get(name)
        shown = f"{own:.1f}" if isinstance(own, int | float) else "-"
        lines.append(f"| {name.replace('_', ' ')} | {shown} | {value:.1f} |")
    return "\n".join(lines), {"ours": ours or None, "paper": paper["figures"]}


def write_tables(
    columns: dict[str, Any], paper_cost: dict[str, Any], given: argparse.Namespace
) -> None:
    """Writes tables.md and results.json.

    Raises:
        DataError: No column has a finished job.
    """
    table, tasks = gathered(columns, given.out, command_line())
    texts = [chapter(column, part(table, name), tasks[name]) for name, column in columns.items()]
    costs, figures = cost(paper_cost)
    head = [NOT_THE_PAPERS] if given.small else []
    text = "\n\n".join([*head, *texts, costs, LEGEND, f"    {table.command}"])
    print(f"\n{text}")
    if not table.rows:
        raise DataError(f"{given.out}: no column has a finished job; no table is written")
    into = given.into or HERE
    into.mkdir(parents=True, exist_ok=True)
    write_text(into / "tables.md", f"{text}\n")
    details = {
        "scale": "small" if given.small else "paper",
        "paper": {name: column["accuracy"] for name, column in columns.items()},
        "tasks": tasks,
        "cost": figures,
    }
    save(table.model_copy(update={"details": details}), into / "results.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="settings, and folders of data")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="columns of paper.json, separated by commas")
    parser.add_argument("--plan", action="store_true", help="print what the runs will take")
    parser.add_argument("--small", action="store_true", help="use the built-in exam and backbone")
    parser.add_argument("--out", type=Path, help="folder of the sweeps (outputs/paper_tables)")
    parser.add_argument("--into", type=Path, help="folder for tables.md and results.json (here)")
    given = parser.parse_args()
    given.out = (given.out or Path("outputs", "paper_tables" + "_small" * given.small)).absolute()
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    names = given.only.split(",") if given.only else list(paper["columns"])
    if unknown := [name for name in names if name not in paper["columns"]]:
        raise SystemExit(f"--only {unknown[0]}: there is {', '.join(paper['columns'])}")
    failed = [name for name in names if run(name, paper["columns"][name], given)]
    if not given.plan:
        write_tables({name: paper["columns"][name] for name in names}, paper["cost"], given)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; the same command resumes them")


if __name__ == "__main__":
    with one_line_errors():
        main()
