"""`elrea compare`: two strategies over runs of several seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elrea.commands import compare
from elrea.commands.messages import one_line_errors
from elrea.errors import ElreaError
from elrea.evaluation.statistics import mcnemar, paired_interval
from elrea.reporting.runs import read_run
from tests.experiments.sweeps import SCORE, write_job

N = 40
DRAW = np.random.default_rng(0)
BASE = {seed: DRAW.random(N) < 0.5 for seed in (0, 1, 2)}
BETTER = {seed: right | (DRAW.random(N) < 0.3) for seed, right in BASE.items()}


def write_run(
    folder: Path,
    seed: int,
    strategies: dict[str, Any],
    answer: str = "A",
    turned: bool = False,
    chosen: str = "elrea",
    **config: Any,
) -> Path:
    """Writes the files of a finished run: predictions, summary, status and config."""
    rows = [
        {
            "id": f"item/{i}",
            "answer": answer,
            "strategies": {name: {"correct": bool(c[i])} for name, c in strategies.items()},
        }
        for i in range(N)
    ]
    summary = {"strategies": dict.fromkeys(strategies, SCORE)}
    write_job(folder.parent, seed, rows[::-1] if turned else rows, summary).rename(folder)
    settings = {"seed": seed, "clustering": {"k": 4, "sizes": [1, 2]}, "ensemble": {}, **config}
    (folder / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    rewrite(folder / "status.json", chosen=chosen)
    return folder


def rewrite(path: Path, **more: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def write_seeds(root: Path) -> Path:
    """A sweep over seeds; the second job has its items in another order."""
    for seed in BASE:
        both = {"base": BASE[seed], "elrea": BETTER[seed]}
        write_run(root / "sweep" / str(seed), seed, both, turned=seed == 1)
    return root / "sweep"


def output(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """What the command prints, or the line of its error."""
    try:
        with one_line_errors():
            compare.main([*map(str, words)])
    except SystemExit as end:
        assert end.code == 1
        return capsys.readouterr().err.removeprefix("error: ")
    return capsys.readouterr().out


def test_seeds_one_by_one_and_together(tmp_path: Path, capsys) -> None:
    words = [write_seeds(tmp_path), "--a", "elrea", "--b", "base", "--resamples", 500]
    found = json.loads(output(capsys, *words, "--json"))
    assert (found["a"], found["b"], found["items"]) == ("elrea", "base", N)
    for row, seed in zip(found["seeds"], BASE, strict=True):
        test = mcnemar(BETTER[seed], BASE[seed])
        assert (row["seed"], row["only_a"], row["only_b"]) == (seed, test.only_a, test.only_b)
        assert row["p"] == pytest.approx(test.p) and test.only_b == 0
        assert (row["a"], row["b"]) == (BETTER[seed].mean(), BASE[seed].mean())
    left, right = (np.array(list(each.values())) for each in (BETTER, BASE))
    pooled = found["pooled"]
    assert pooled["ci95"] == pytest.approx(paired_interval(left, right, 0, 500), abs=1e-6)
    assert pooled["difference"] == pytest.approx(left.mean() - right.mean(), abs=1e-6)
    ahead = left.sum(0) - right.sum(0)
    assert (pooled["only_a"], pooled["only_b"]) == ((ahead > 0).sum(), (ahead < 0).sum())
    table = output(capsys, *words)
    assert max(map(len, table.splitlines())) <= 100
    assert [line.split()[0] for line in table.splitlines()[3:7]] == ["0", "1", "2", "all"]


def test_equal_answers_with_three_seeds_are_no_more_evidence_than_with_one(
    tmp_path: Path,
) -> None:
    """Adding up the seeds' discordant pairs would make p small by repetition alone."""
    both = {"base": BASE[0], "elrea": BETTER[0]}
    runs = [read_run(write_run(tmp_path / str(seed), seed, both)) for seed in (3, 4, 5)]
    one, three = (compare.compare(some, "elrea", "base", 200) for some in (runs[:1], runs))
    assert three["pooled"] == one["pooled"]
    assert {**one["seeds"][0], "seed": None} == {**one["pooled"], "seed": None}
    turned = compare.compare(runs, "base", "elrea", 200)["pooled"]
    assert turned["difference"] == -three["pooled"]["difference"]
    assert (turned["only_a"], turned["p"]) == (0, three["pooled"]["p"])


def test_strategies_of_several_runs_with_one_seed(tmp_path: Path) -> None:
    """Jobs of a sweep over `ensemble=` score different strategies with one seed."""
    one = write_run(tmp_path / "one", 0, {"base": BASE[0], "elrea": BETTER[0]})
    two = write_run(tmp_path / "two", 0, {"base": BASE[0], "uniform": BASE[1]})
    runs = [read_run(folder) for folder in (one, two)]
    found = compare.compare(runs, "elrea", "uniform", 100)
    assert len(found["seeds"]) == 1 and found["pooled"]["b"] == BASE[1].mean()


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


def error_of(*runs: Path, a: str = "elrea", b: str = "base") -> str:
    with pytest.raises(ElreaError) as caught:
        compare.compare([read_run(run) for run in runs], a, b, 100)
    return str(caught.value)


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


def test_runs_that_differ_in_more_than_the_seed_are_not_pooled(tmp_path: Path) -> None:
    both = {"base": BASE[0], "elrea": BETTER[0]}

    def made(name: str, seed: int, **config: Any) -> Path:
        return write_run(tmp_path / name, seed, both, **config)

    first = made("first", 0)
    for name, config, said in (
        ("k", {"clustering": {"k": 8, "sizes": [1, 2]}}, "clustering.k (8 and 4)"),
        ("list", {"clustering": {"k": 4, "sizes": [1]}}, "clustering.sizes ([1] and [1, 2])"),
        ("less", {"clustering": {"k": 4}}, "clustering.sizes (not set and [1, 2])"),
        ("precision", {"trainer": {"precision": "16"}}, "trainer.precision (16 and not set)"),
        ("own", {"ensemble": {"top_k": 1}}, "ensemble.top_k (1 and not set)"),
        ("rate", {"evaluation": {"settings": {"base": {"rate": 2}}}}, "evaluation.settings.base.rate (2"),
    ):  # fmt: skip
        other = made(name, 1, **config)
        assert f"{other} and {first} differ in {said}" in error_of(first, other)


def test_settings_that_cannot_change_answers_may_differ(tmp_path: Path) -> None:
    """The hardware, the reporting, and strategies that are not compared."""
    first = write_run(tmp_path / "first", 0, {"base": BASE[0], "elrea": BETTER[0]})
    other = write_run(
        tmp_path / "other",
        1,
        {"base": BASE[1], "elrea": BETTER[1], "uniform": BASE[0]},
        chosen="uniform",
        ensemble={"top_k": 1},
        store="${oc.env:NOWHERE_TO_BE_FOUND}",
        tracking={"mode": "disabled"},
        trainer={"threads": 1},
        evaluation={
            "strategies": ["uniform"],
            "settings": {"uniform": {"rate": 2}},
            "resamples": 5,
        },
    )
    found = compare.compare([read_run(first), read_run(other)], "elrea", "base", 100)
    assert [row["seed"] for row in found["seeds"]] == [0, 1]
