"""Holds verdicts of `+experiment=does_it_pay` against the truth: all candidates trained on all of the data, on test.

    python experiments/does_it_pay/study.py run multirun/does_it_pay
    python experiments/does_it_pay/study.py table multirun/does_it_pay

`run` goes through the settings and writes one JSON for each into experiments/does_it_pay/settings; a setting that has
one is left alone, and a stopped one resumes from its runs' folders and the store. `table` reads what is there and
writes table.md and results.json beside this file. Of each setting there are two verdicts: with 1/8, 1/4 and 1/2 of the
data, whatever they cost, and within half of a full ELREA run (none where that leaves too few rows).
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elrea.store.files import read_json, write_json, write_text

HERE = Path(__file__).parent
RUN = HERE.parents[1] / "run.py"
SETTINGS = HERE / "settings"
SEED = 20
"""Of the runs and of the exam's questions: no rate, size or rule was chosen on these."""
SIZES, CONFLICTS, RANKS = (100, 200, 500, 1000), (1, 0, 0.5), (1, 4)
EXPERTS, WIDE = "elrea_top1", "parameter_matched"
RULES = ("pick", "best")
"""What a verdict names: the candidate to take, and the one that its lines put first."""
LADDERS = {"halves": "verdict.budget=20", "half_a_run": "verdict.budget=0.5"}


def settings() -> list[tuple[int, float, int]]:
    """(questions a board, conflict, rank) of all settings, the cheap ones first."""
    return [(n, c, r) for n, r, c in itertools.product(SIZES, RANKS, CONFLICTS)]


def run(folder: Path, most: int) -> None:
    """Makes the settings that have no JSON yet, `most` at most."""
    for size, conflict, rank in settings():
        name = f"{size}-conflict{conflict}-rank{rank}"
        path = SETTINGS / f"{name}.json"
        if path.is_file():
            continue
        if most == 0:
            return
        most -= 1
        words = [
            "+experiment=does_it_pay", f"data.train_per_board={size}", f"data.conflict={conflict}",
            f"adapter.r={rank}", f"seed={SEED}", f"data.seed={SEED}", "data.test_per_board=130",
            "trainer.threads=1", "tracking.mode=disabled",
        ]  # fmt: skip
        found = {
            ladder: _verdict(folder / name / ladder, [*words, word])
            for ladder, word in LADDERS.items()
        }
        truth = folder / name / "truth"
        _command([*words, "~verdict", "evaluation.split=test", f"hydra.run.dir={truth}"])
        summary = read_json(truth / "summary.json")
        row: dict[str, Any] = {
            "size": size, "conflict": conflict, "rank": rank, "seed": SEED,
            "truth": {n: s["accuracy"] for n, s in summary["strategies"].items() if n != "base"},
            "items": summary["examples"]["test"],
            "gradient_conflict": summary["clusters"]["conflict"],
            "nmi": summary["clusters"].get("nmi"),
            "verdicts": {ladder: one for ladder, one in found.items() if one},
        }  # fmt: skip
        SETTINGS.mkdir(exist_ok=True)
        write_json(path, row)
        print(name, {n: round(100 * a, 1) for n, a in row["truth"].items()}, flush=True)


def _verdict(folder: Path, words: Sequence[str]) -> dict[str, Any] | None:
    """One verdict; None where the budget leaves too few rows for the clusters."""
    ended = _command([*words, f"hydra.run.dir={folder}"], may_fail=True)
    if "the smallest part" in ended:
        return None
    found = read_json(folder / "verdict.json")
    return {
        key: found[key]
        for key in ("rows", "parts", "spent", "measure", "accuracy", "loss", "candidates")
    }


def _command(words: Sequence[str], may_fail: bool = False) -> str:
    """Runs run.py; returns what it said on stderr.

    Raises:
        SystemExit: It failed, and not by refusing parts that are too small.
    """
    ended = subprocess.run([sys.executable, str(RUN), *words], stderr=subprocess.PIPE, text=True)
    if ended.returncode and not (may_fail and "the smallest part" in ended.stderr):
        sys.exit(f"{' '.join(words)}\n{ended.stderr}")
    return ended.stderr


def regret(truth: Mapping[str, float], name: str) -> float:
    """Points of accuracy that a candidate loses against the best in hindsight."""
    return 100 * (max(truth.values()) - truth[name])


def row_of(one: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one setting."""
    truth = one["truth"]
    found: dict[str, Any] = {
        "size": one["size"], "conflict": one["conflict"], "rank": one["rank"],
        "best": max(truth, key=truth.__getitem__),
        "gradient_conflict": one["gradient_conflict"],
        "experts_less_wide": 100 * (truth[EXPERTS] - truth[WIDE]),
        "regret_elrea": regret(truth, "elrea"),
        "regret_elrea_top1": regret(truth, EXPERTS),
        "regret_wide": regret(truth, WIDE),
        "regret_steered": regret(truth, "steered"),
    }  # fmt: skip
    for ladder, verdict in one["verdicts"].items():
        decision = verdict["accuracy"]
        found[ladder] = {
            "spent": verdict["spent"], "decided": decision["decided"],
            **{rule: decision[rule] for rule in RULES},
            **{f"regret_{rule}": regret(truth, decision[rule]) for rule in RULES},
            "regret_best_by_loss": regret(truth, verdict["loss"]["best"]),
            "covered": _covered(truth, decision),
        }  # fmt: skip
    return found


def _covered(truth: Mapping[str, float], decision: Mapping[str, Any]) -> list[bool]:
    """Whether each interval of the lead of `best` has the lead on test in it."""
    ahead = decision["best_ahead"]
    return [
        d["ci95"][0] <= truth[decision["best"]] - truth[name] <= d["ci95"][1]
        for name, d in ahead.items()
    ]


def predicted(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How well the gradient conflict alone predicts whether experts beat one wide adapter.

    Of each setting the threshold of the conflict is chosen on all others (the least regret between the nearest expert
    and the wide adapter) and held against its truth.
    """
    if len(rows) < 3:
        return {}
    from scipy.stats import spearmanr

    x = np.array([row["gradient_conflict"] for row in rows])
    gain = np.array([row["experts_less_wide"] for row in rows])
    lost = []
    for left in range(len(rows)):
        others = np.arange(len(rows)) != left
        known = np.sort(x[others])
        cuts = [-np.inf, *(known[1:] + known[:-1]) / 2, np.inf]
        regrets = [_lost(x[others] > cut, gain[others]).mean() for cut in cuts]
        lost.append(float(_lost(x[left] > cuts[int(np.argmin(regrets))], gain[left])))
    rank = float(spearmanr(x, gain).statistic) if np.ptp(x) and np.ptp(gain) else None
    return {
        "spearman": rank, "regret": float(np.mean(lost)),
        "regret_always_experts": float(_lost(np.ones(len(x), bool), gain).mean()),
        "regret_always_wide": float(_lost(np.zeros(len(x), bool), gain).mean()),
    }  # fmt: skip


def _lost(experts: Any, gain: Any) -> Any:
    """Points lost by taking experts where true, and the wide adapter elsewhere, against the better of the two."""
    return np.where(experts, np.maximum(-gain, 0), np.maximum(gain, 0))


def table() -> None:
    """Writes table.md and results.json of the settings that are there."""
    rows = [row_of(read_json(path)) for path in SETTINGS.glob("*.json")]
    rows.sort(key=lambda row: (row["size"], row["conflict"], row["rank"]))
    means: dict[str, Any] = {"settings": len(rows), "of": len(settings())}
    for name in ("regret_elrea", "regret_elrea_top1", "regret_wide", "regret_steered"):
        means[name] = float(np.mean([row[name] for row in rows]))
    for ladder in LADDERS:
        there = [row[ladder] for row in rows if ladder in row]
        if not there:
            continue
        names = [n for n in there[0] if n.startswith("regret")] + ["spent", "decided"]
        means[ladder] = {"settings": len(there)} | {
            n: float(np.mean([r[n] for r in there])) for n in names
        }
        means[ladder]["covered"] = float(np.mean([c for r in there for c in r["covered"]]))
    means["gradient_conflict_alone"] = predicted(rows)
    write_json(HERE / "results.json", {"rows": rows, "means": means})
    text = _page(rows, means)
    write_text(HERE / "table.md", text)
    print(text)


def _page(rows: Sequence[Mapping[str, Any]], means: Mapping[str, Any]) -> str:
    heads = [
        "questions a board", "conflict", "rank", "gradient conflict", "best on test", "halves: pick", "first",
        "lost by the pick", "by the first", "half a run: pick", "lost", "always elrea_top1", "always wide",
        "always steered",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        halves, half = row["halves"], row.get("half_a_run")
        sure = "" if halves["decided"] else " (undecided)"
        cells = [
            row["size"], row["conflict"], row["rank"], f"{row['gradient_conflict']:.3f}", row["best"],
            halves["pick"] + sure, halves["best"], f"{halves['regret_pick']:.1f}", f"{halves['regret_best']:.1f}",
            half["pick"] if half else "-", f"{half['regret_pick']:.1f}" if half else "-",
            f"{row['regret_elrea_top1']:.1f}", f"{row['regret_wide']:.1f}", f"{row['regret_steered']:.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", f"{means['settings']} of {means['of']} settings. Means:", ""]
    lines += [f"    {name}: {_shown(value)}" for name, value in means.items() if name != "of"]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("multirun/does_it_pay"))
    parser.add_argument("--most", type=int, default=-1, help="settings to make (-1: all)")
    given = parser.parse_args()
    if given.what == "run":
        run(given.folder, given.most)
    else:
        table()


if __name__ == "__main__":
    main()
