"""Every table of the paper: runs what is missing, and writes ours beside the paper's numbers.

    python experiments/paper_tables/tables.py --seeds 0,1,2 math.root=<folder> mmlu.root=<folder> bbh.root=<folder> \\
      train.root=<folder less_data>                        # the paper's setting: one GPU, days
    python experiments/paper_tables/tables.py --plan      # what each of its runs will take; nothing is fetched
    python experiments/paper_tables/tables.py --small     # tried on the built-in exam and backbone: minutes

What is not given as a folder comes from the hub. Words with a point are settings for every run
(`training.max_steps=10`); `math.`, `mmlu.`, `bbh.` and `train.root=` name folders of data. Each column is a sweep over
seeds in <--out>/<column>: the same line goes on where it stopped, and shares what columns have in common. Writes
tables.md and results.json: accuracy (mean over seeds), every seed, and ELREA's difference to each row with a paired
95 % interval, beside the paper's one run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elrea.commands.messages import one_line_errors
from elrea.errors import DataError
from elrea.evaluation.statistics import paired_interval
from elrea.reporting.runs import read_run
from elrea.reporting.sweeps import read_jobs
from elrea.store.files import read_json, write_json, write_text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAPER = HERE / "paper.json"
COST = ROOT / "experiments" / "benchmarks" / "inference.json"
OF = "elrea"
SMALL = [
    "scale=small", "features.projection=sjlt", "data.boards=2", "data.train_per_board=60", "data.dev_per_board=4",
    "data.test_per_board=40", "clustering.k=2", "clustering.min_size=8", "trainer.threads=1",
]  # fmt: skip
MOST = 4
"""Tasks that have a column of their own in tables.md; results.json has all."""
NOT_THE_PAPERS = "**Tried on the built-in exam and backbone: none of this is the paper's setting.**"


def words_of(name: str, column: dict[str, Any], given: argparse.Namespace) -> list[str]:
    """What `run.py` is called with for a column of a table."""
    scores = f"evaluation.strategies=[{','.join(column['accuracy'])}]"
    if given.small:
        own = [w for w in column["words"] if not w.startswith("features.projection.d=")]
        setting = [w for w in SMALL if not w.startswith("features.projection=")]
        if "d512" in name:
            setting.append("features.projection.d=64")
    else:
        own = [*column["words"], *column.get("paper_words", [])]
        setting = ["scale=paper"]
    words = [*own, *setting, f"ensemble={OF}", scores, f"seed={given.seeds}"]
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
    """Makes a column, or goes on with it; its exit code."""
    words = words_of(name, column, given)
    print(f"\n== {column['title']}\n   python run.py -m {' '.join(words)}", flush=True)
    if given.plan:
        words = [f"seed={given.seeds.split(',')[0]}" if w.startswith("seed=") else w for w in words]
        line = [*words, "plan=true", f"hydra.run.dir={given.out / 'plans' / name}"]
    else:
        line = ["-m", *words, f"hydra.sweep.dir={given.out / name}"]
    return subprocess.run([sys.executable, str(ROOT / "run.py"), *line], check=False).returncode


def filled(column: dict[str, Any], folder: Path) -> dict[str, Any]:
    """By row, ours of a finished sweep and the paper's; ours are missing where there is none."""
    jobs = [job for job in read_jobs(folder) if job["state"] == "done"] if folder.is_dir() else []
    read = [read_run(folder / job["number"]) for job in jobs]
    if len({each.seed for each in read}) < len(read):
        raise DataError(f"{folder}: a seed stands there twice; give an --out of its own")
    runs = [each.correct for each in read]
    if missing := [name for name in column["accuracy"] for each in runs if name not in each]:
        raise DataError(f"{folder}: its jobs did not score {missing[0]}; give an --out of its own")
    rows: dict[str, Any] = {}
    for name, paper in column["accuracy"].items():
        rows[name] = {"paper": paper}
        if not runs:
            continue
        right = np.array([each[name] for each in runs])
        mine = np.array([each[OF] for each in runs])
        delta = 100 * float(mine.mean() - right.mean())
        rows[name] |= {
            "accuracy": round(100 * float(right.mean()), 2),
            "seeds": (100 * right.mean(1)).round(2).tolist(),
            "items": right.shape[1],
            "elrea_minus_it": round(delta, 2),
            "elrea_minus_it_ci95": [round(100 * x, 2) for x in paired_interval(mine, right, 0)],
            "paper_elrea_minus_it": round(column["accuracy"][OF] - paper, 2),
        }
        if tasks := tasks_of(jobs, name):
            rows[name]["tasks"] = tasks
    return rows


def tasks_of(jobs: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    """A strategy's accuracy in each task (MATH-Combined's four sources, BBH's tasks, MMLU's subjects), in points, the
    mean over seeds; none where there is one task."""
    found = [job["strategies"][name].get("tasks", {}) for job in jobs]
    if len(found[0]) < 2:
        return {}
    means = {task: np.mean([each[task]["accuracy"] for each in found]) for task in found[0]}
    return {task: round(100 * float(mean), 2) for task, mean in means.items()}


def markdown(title: str, rows: dict[str, Any]) -> str:
    """A column of the paper as a table of its own."""
    first = next(iter(rows.values()))
    note = (
        f"{first['items']:,} items, {len(first['seeds'])} seeds" if "items" in first else "not run"
    )
    lines = [
        f"### {title} ({note})", "",
        "| strategy | ours | seeds | paper | elrea less it, ours | 95 % interval, paired | paper's |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    shown = next((list(row["tasks"]) for row in rows.values() if "tasks" in row), [])
    if 1 < len(shown) <= MOST:
        lines[2] += "".join(f" {task} |" for task in shown)
        lines[3] += "---|" * len(shown)
    for name, row in rows.items():
        ours = ["-", "-"]
        if "items" in row:
            ours = [f"{row['accuracy']:.2f}", " ".join(f"{x:.1f}" for x in row["seeds"])]
        versus = ["-", "-", "-"]
        if "items" in row and name != OF:
            low, high = row["elrea_minus_it_ci95"]
            versus = [
                f"{row['elrea_minus_it']:+.2f}", f"[{low:+.2f}, {high:+.2f}]", f"{row['paper_elrea_minus_it']:+.2f}"
            ]  # fmt: skip
        cells = [name, *ours, f"{row['paper']:.2f}", *versus]
        if 1 < len(shown) <= MOST:
            cells += [f"{row['tasks'][task]:.2f}" if "tasks" in row else "-" for task in shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cost(paper: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The cost table, ours from `experiments/benchmarks/inference.py --paper gemma-2b`."""
    ours = (read_json(COST) or {}).get("paper_toy") or {}
    lines = [f"### {paper['title']}", "", "| | ours | paper |", "|---|---|---|"]
    for name, value in paper["figures"].items():
        own = ours.get(name)
        shown = f"{own:.1f}" if isinstance(own, int | float) else "-"
        lines.append(f"| {name.replace('_', ' ')} | {shown} | {value:.1f} |")
    return "\n".join(lines), {"ours": ours or None, "paper": paper["figures"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="settings, and folders of data")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="columns, by commas; those of paper.json")
    parser.add_argument("--plan", action="store_true", help="what the runs will take")
    parser.add_argument("--small", action="store_true", help="the built-in exam and backbone")
    parser.add_argument("--out", type=Path, help="where the sweeps lie (outputs/paper_tables)")
    parser.add_argument("--into", type=Path, help="where tables.md and results.json go (here)")
    given = parser.parse_args()
    given.out = (given.out or Path("outputs", "paper_tables" + "_small" * given.small)).absolute()
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    names = given.only.split(",") if given.only else list(paper["columns"])
    if unknown := [name for name in names if name not in paper["columns"]]:
        raise SystemExit(f"--only {unknown[0]}: there is {', '.join(paper['columns'])}")
    failed = [name for name in names if run(name, paper["columns"][name], given)]
    if not given.plan:
        found = {name: filled(paper["columns"][name], given.out / name) for name in names}
        texts = [markdown(paper["columns"][name]["title"], rows) for name, rows in found.items()]
        costs, figures = cost(paper["cost"])
        head = [NOT_THE_PAPERS] if given.small else []
        text = "\n\n".join([*head, *texts, costs])
        print(f"\n{text}")
        if not any("items" in row for rows in found.values() for row in rows.values()):
            raise DataError(f"{given.out}: no job of any column ended well; no table is written")
        into = given.into or HERE
        into.mkdir(parents=True, exist_ok=True)
        write_text(into / "tables.md", f"{text}\n")
        scale = "small" if given.small else "paper"
        write_json(into / "results.json", {"scale": scale, "columns": found, "cost": figures})
    if failed:
        raise SystemExit(f"did not end well: {', '.join(failed)}; the same line goes on with them")


if __name__ == "__main__":
    with one_line_errors():
        main()
