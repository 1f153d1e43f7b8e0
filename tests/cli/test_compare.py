"""`elrea compare`: two strategies over runs of several seeds."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from elrea.commands import compare
from elrea.evaluation.seed_intervals import seeds_items_interval, seeds_items_p, seeds_p
from elrea.evaluation.statistics import mcnemar, paired_interval
from elrea.reporting.runs import read_run
from tests.cli.compare_runs import (
    BASE,
    BETTER,
    N,
    error_of,
    output,
    rewrite,
    write_run,
    write_seeds,
)


def test_seeds_one_by_one_and_together(tmp_path: Path, capsys) -> None:
    words = [write_seeds(tmp_path), "--a", "elrea", "--b", "base", "--resamples", 500]
    found = json.loads(output(capsys, *words, "--json"))
    (group,) = found["settings"]
    assert {**group, "setting": {}} == {
        **{k: found[k] for k in ("items", "seeds", "pooled")},
        "setting": {},
    }
    assert (found["a"], found["b"], group["items"], group["setting"]) == ("elrea", "base", N, {})
    for row, seed in zip(group["seeds"], BASE, strict=True):
        test = mcnemar(BETTER[seed], BASE[seed])
        assert (row["seed"], row["only_a"], row["only_b"]) == (seed, test.only_a, test.only_b)
        assert row["p"] == pytest.approx(test.p) and test.only_b == 0
        assert (row["a"], row["b"]) == (BETTER[seed].mean(), BASE[seed].mean())
    left, right = (np.array(list(each.values())) for each in (BETTER, BASE))
    pooled = group["pooled"]
    assert pooled["ci95"] == pytest.approx(paired_interval(left, right, 0, 500), abs=1e-6)
    assert pooled["difference"] == pytest.approx(left.mean() - right.mean(), abs=1e-6)
    ahead = left.sum(0) - right.sum(0)
    assert (pooled["only_a"], pooled["only_b"]) == ((ahead > 0).sum(), (ahead < 0).sum())
    table = output(capsys, *words)
    assert max(map(len, table.splitlines())) <= 100
    assert [line.split()[0] for line in table.splitlines()[3:9]] == [
        "0",
        "1",
        "2",
        "all",
        "seeds",
        "both",
    ]


def test_the_tests_over_seeds_are_scipys_and_never_contradict_their_interval(
    tmp_path: Path, capsys
) -> None:
    words = [write_seeds(tmp_path), "--a", "elrea", "--b", "base"]
    pooled = json.loads(output(capsys, *words, "--json"))["settings"][0]["pooled"]
    left, right = (np.array(list(each.values()), dtype=float) for each in (BETTER, BASE))
    t = stats.ttest_rel(left.mean(1), right.mean(1))
    over = pooled["over_seeds"]
    assert over["p"] == pytest.approx(t.pvalue)
    assert over["ci95"] == pytest.approx(list(t.confidence_interval(0.95)), abs=1e-6)
    both = pooled["over_seeds_and_items"]
    assert both["ci95"] == pytest.approx(seeds_items_interval(left - right), abs=1e-6)
    for test in (over, both):
        assert (test["p"] < 0.05) == (test["ci95"][0] > 0 or test["ci95"][1] < 0)
    lines = output(capsys, *words).splitlines()
    rows = {line.split()[-7] if "McNemar" in line else line.split()[0]: line for line in lines[3:9]}
    assert f"{over['p']:.2g}  Student's t" in rows["seeds"] and "Student's t" in rows["seeds"]
    assert f"{both['p']:.2g}  bootstrap" in rows["both"]
    assert all("bootstrap" in line and "McNemar (" in line for line in lines[3:7])


def test_the_p_value_over_seeds_and_items_by_enumeration() -> None:
    """Two seeds, three items: of all 2² · 3³ resamples, the share on the rarer side of 0, twice."""
    cells = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, -1.0]])
    every = np.array([
        cells[np.ix_(seeds, items)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for items in itertools.product(range(3), repeat=3)
    ])  # fmt: skip
    wanted = 2 * min((every <= 1e-12).mean(), (every >= -1e-12).mean())
    assert seeds_items_p(cells, resamples=100_000) == pytest.approx(wanted, abs=0.01)
    assert seeds_items_p(0 * cells) == 1.0 and seeds_items_p(cells[:1]) is None
    assert seeds_items_p(np.ones((2, 5)), resamples=999) == 0.002, "never 0"
    assert seeds_p([0.1]) is None and seeds_p([0.5, 0.5]) is None
    assert seeds_p([1, 2, 4]) == pytest.approx(stats.ttest_1samp([1, 2, 4], 0).pvalue)


def test_equal_answers_with_three_seeds_are_no_more_evidence_than_with_one(
    tmp_path: Path,
) -> None:
    """Adding up the seeds' discordant pairs would make p small by repetition alone."""
    both = {"base": BASE[0], "elrea": BETTER[0]}
    runs = [read_run(write_run(tmp_path / str(seed), seed, both)) for seed in (3, 4, 5)]
    one, three = (compare.compare(some, "elrea", "base", 200) for some in (runs[:1], runs))
    (single,), (several,) = one["settings"], three["settings"]
    assert (
        single["pooled"].pop("over_seeds") is None is single["pooled"].pop("over_seeds_and_items")
    )
    assert several["pooled"].pop("over_seeds") is None, "equal differences have no t"
    assert several["pooled"].pop("over_seeds_and_items")
    assert several["pooled"] == single["pooled"]
    assert {**single["seeds"][0], "seed": None} == {**single["pooled"], "seed": None}
    turned = compare.compare(runs, "base", "elrea", 200)["settings"][0]["pooled"]
    assert turned["difference"] == -several["pooled"]["difference"]
    assert (turned["only_a"], turned["p"]) == (0, several["pooled"]["p"])


def test_sources_are_in_the_order_of_the_items(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", 0, {"base": BASE[0]}, turned=True, chosen="base"))
    assert run.sources == [f"source-{identity.rpartition('/')[2]}" for identity, _ in run.items]


def test_strategies_of_several_runs_with_one_seed(tmp_path: Path) -> None:
    """Jobs of a sweep over `ensemble=` score different strategies with one seed."""
    one = write_run(tmp_path / "one", 0, {"base": BASE[0], "elrea": BETTER[0]})
    two = write_run(tmp_path / "two", 0, {"base": BASE[0], "uniform": BASE[1]})
    runs = [read_run(folder) for folder in (one, two)]
    found = compare.compare(runs, "elrea", "uniform", 100)
    (group,) = found["settings"]
    assert len(group["seeds"]) == 1 and group["pooled"]["b"] == BASE[1].mean()


def test_runs_that_cannot_be_compared_give_one_line(tmp_path: Path, capsys) -> None:
    def line(*words: Any) -> str:
        said = output(capsys, *words, "--a", "elrea", "--b", "base").strip()
        assert "\n" not in said
        return said

    sweep = write_seeds(tmp_path)
    other = write_run(tmp_path / "other", 3, {"base": BASE[0], "elrea": BASE[1]}, answer="B")
    again = write_run(tmp_path / "again", 1, {"base": BASE[1], "elrea": BASE[1]})
    without = write_run(tmp_path / "without", 4, {"base": BASE[0], "elrae": BASE[1]})
    (tmp_path / "empty").mkdir()
    assert "no predictions.jsonl there" in line(tmp_path / "empty")
    assert "have different test items (40 and 40)" in line(sweep, other)
    assert "have seed 1 and score elrea differently" in line(sweep, again)
    assert "no strategy 'elrea' with seed 4; did you mean elrae? (there is: base, elrae)" in line(
        sweep, without
    )
    right = (without / "predictions.jsonl").read_text()
    (without / "predictions.jsonl").write_text('{"id": "a"}\n')
    assert "predictions.jsonl: invalid predictions (KeyError('strategies'))" in line(without)
    (without / "predictions.jsonl").write_text("no JSON\n")
    assert "invalid predictions" in line(without)
    (without / "predictions.jsonl").write_text(right)
    (without / "summary.json").unlink()
    assert "summary.json: checksum mismatch" in line(without)
    for resamples in (0, 10**10):
        said = line(sweep, "--resamples", resamples)
        assert f"--resamples {resamples}: must be 1 to 1000000" in said


def test_a_run_that_is_not_done_is_refused(tmp_path: Path) -> None:
    """Its folder may hold the answers of an earlier run."""
    run = write_run(tmp_path / "run", 0, {"base": BASE[0], "elrea": BETTER[0]})
    for state, error in (("failed", "no such data"), ("running", None), ("prepared", None)):
        rewrite(run / "status.json", state=state, **({"error": error} if error else {}))
        said = error_of(run)
        assert (
            f"{run}: the state of the last run there is {state}, not done" in said
            and (error or "") in said
        )
    rewrite(run / "status.json", state="done")
    compare.compare([read_run(run)], "elrea", "base", 100)
    rewrite(run / "summary.json", seed=1)
    assert "summary.json: checksum mismatch" in error_of(run)
    (run / "status.json").unlink()
    assert f"{run}: no status.json there" in error_of(run)


def test_predictions_must_match_the_summary(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0, {"base": BASE[0], "elrea": BETTER[0]})
    path = run / "predictions.jsonl"
    lines = path.read_text().splitlines()
    turned = lines[0].replace("true", "t").replace("false", "true").replace(": t}", ": false}")
    for changed, said in (
        (lines[:-1], "its 39 lines are not the 40 answers of base in summary.json"),
        ([*lines[:-1], lines[0]], "duplicate id 'item/0'"),
        ([turned, *lines[1:]], "its 40 lines are not the 40 answers of base in summary.json"),
        ([lines[0].replace("true", "1").replace("false", "0"), *lines[1:]], "correct must be true or false"),
        ([], "its 0 lines are not"),
        (["[" * 100_000], "invalid predictions"),
    ):  # fmt: skip
        path.write_text("\n".join(changed) + "\n" * bool(changed))
        assert said in error_of(run) and str(path) in error_of(run)
