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
from elrea.commands.exit import one_line_errors
from elrea.errors import ElreaError
from elrea.evaluation.seed_intervals import seeds_items_interval, seeds_items_p, seeds_p
from elrea.evaluation.statistics import mcnemar, paired_interval
from elrea.reporting.runs import read_run
from elrea.reporting.settings import by_setting
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
            "source": f"source-{i}",
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
    for name, config, key, values in (
        ("k", {"clustering": {"k": 16, "sizes": [1, 2]}}, "clustering.k", ["4", "16"]),
        ("list", {"clustering": {"k": 4, "sizes": [1]}}, "clustering.sizes", ["[1, 2]", "[1]"]),
        ("less", {"clustering": {"k": 4}}, "clustering.sizes", ["-", "[1, 2]"]),
        ("precision", {"trainer": {"precision": "16"}}, "trainer.precision", ["16", "-"]),
        ("own", {"ensemble": {"top_k": 1}}, "ensemble.top_k", ["1", "-"]),
        ("rate", {"evaluation": {"settings": {"base": {"rate": 2}}}}, "evaluation.settings.base.rate", ["2", "-"]),
    ):  # fmt: skip
        runs = [read_run(first), read_run(made(name, 1, **config))]
        found = compare.compare(runs, "elrea", "base", 100)["settings"]
        assert [group["setting"] for group in found] == [{key: value} for value in values], name
        assert [len(group["seeds"]) for group in found] == [1, 1]


def write_sweep_over_k(root: Path, words: bool = True) -> Path:
    """A sweep over two numbers of clusters and the seed; `words`: as it was typed, also for the ensemble."""
    number = 10  # below, `write_run` uses the seeds as names
    for k in (8, 16):
        for seed in BASE:
            both = {"base": BASE[seed], "elrea": BETTER[seed] if k == 8 else BASE[seed]}
            config: dict[str, Any] = {
                "clustering": {"k": k, "sizes": [k] * 2},
                "store": f"store{number}",
            }
            job = write_run(root / "sweep" / str(number), seed, both, **config)
            typed = [f"clustering.k={k}", f"seed={seed}", f"store=store{number}"]
            rewrite(job / "status.json", words=typed if words else [f"seed={seed}"])
            number += 1
    return root / "sweep"


@pytest.mark.parametrize("words", [True, False])
def test_a_whole_sweep_is_grouped_by_setting(words: bool, tmp_path: Path, capsys) -> None:
    """Each setting has its seeds; it is named by what was typed, and else by what differs in the config."""
    given = [write_sweep_over_k(tmp_path, words), "--a", "elrea", "--b", "base", "--resamples", 200]
    found = json.loads(output(capsys, *given, "--json"))["settings"]
    assert [group["setting"] for group in found] == [{"clustering.k": "8"}, {"clustering.k": "16"}]
    assert [[row["seed"] for row in group["seeds"]] for group in found] == [[0, 1, 2]] * 2
    assert (
        [group["pooled"]["difference"] for group in found][1]
        == 0
        < found[0]["pooled"]["difference"]
    )
    alone = [read_run(tmp_path / "sweep" / str(number)) for number in (10, 11, 12)]
    assert (
        compare.compare(alone, "elrea", "base", 200)["settings"][0]["pooled"] == found[0]["pooled"]
    )
    lines = output(capsys, *given).splitlines()
    assert max(map(len, lines)) <= 100 and lines[1].split()[:2] == ["k", "seed"]
    assert [line.split()[:2] for line in lines if line.startswith(("8", "16"))] == [
        ["8", "0"],
        ["16", "0"],
    ]


def test_jobs_that_are_not_done_are_left_out_and_said(tmp_path: Path, capsys) -> None:
    sweep = write_sweep_over_k(tmp_path)
    rewrite(sweep / "15" / "status.json", state="failed", error="no space")
    (sweep / "16").mkdir()
    (sweep / "16" / "status.json").write_text(
        '{"state": "running", "words": [], "chosen": "elrea", "seconds": 1.0}'
    )
    given = [sweep, "--a", "elrea", "--b", "base", "--resamples", 100]
    said = "left out because they are not done: job 15 (failed), 16 (running)"
    text = " ".join(output(capsys, *given).split())
    assert said in text
    found = json.loads(output(capsys, *given, "--json"))
    assert found["left_out"] == [f"{sweep}: {said}"]
    assert [len(group["seeds"]) for group in found["settings"]] == [3, 2]


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
    (group,) = found["settings"]
    assert [row["seed"] for row in group["seeds"]] == [0, 1]


@pytest.mark.parametrize("same", [True, False])
def test_a_changed_strategy_is_not_pooled_with_a_plain_one(same: bool, tmp_path: Path) -> None:
    """One run is about it, the other scores it beside another strategy, with the settings of its file or the same."""
    rows = [{"base": BASE[seed], "steered": BETTER[seed]} for seed in (0, 1)]
    soft = {"soft": True, "clusters_from": {"epochs": 1}, "rate": 0.35}
    first = write_run(tmp_path / "first", 0, rows[0], chosen="steered", ensemble=soft)
    rewrite(first / "status.json", words=["ensemble=steered", "ensemble.soft=true", "seed=0"])
    own = {"settings": {"steered": {"soft": True}}} if same else {}
    other = write_run(tmp_path / "other", 1, rows[1], ensemble={"top_k": None}, evaluation=own)
    found = compare.compare([read_run(first), read_run(other)], "steered", "base", 100)
    settings = [group["setting"] for group in found["settings"]]
    if same:
        assert settings == [{}]
    else:
        assert len(settings) == 2 and {"True", "-"} == {
            *settings[0].values(),
            *settings[1].values(),
        }


@pytest.mark.parametrize("soft", [True, False])
def test_what_a_config_file_changes_is_not_pooled_either(soft: bool, tmp_path: Path) -> None:
    """Nothing of it was typed: the strategy's own file has soft=false."""
    rows = [{"base": BASE[seed], "steered": BETTER[seed]} for seed in (0, 1)]
    own = {"soft": soft, "rate": 0.35, "clusters_from": {"epochs": 1}}
    first = write_run(tmp_path / "first", 0, rows[0], chosen="steered", ensemble=own)
    rewrite(first / "status.json", words=["+experiment=mine", "seed=0"])
    other = write_run(tmp_path / "other", 1, rows[1], ensemble={"top_k": None})
    found = compare.compare([read_run(first), read_run(other)], "steered", "base", 100)
    assert len(found["settings"]) == (2 if soft else 1)


def test_runs_of_two_versions_are_one_setting(tmp_path: Path) -> None:
    """A key that the older one did not have does not tell them apart, unless choices were asked in another form."""
    both = {"base": BASE[0], "elrea": BETTER[0]}
    old = write_run(tmp_path / "old", 0, both)
    new = write_run(
        tmp_path / "new", 1, both, backbone={"add_bos": None}, data={"options": "letters"}
    )

    def groups() -> int:
        return len(by_setting([read_run(old), read_run(new)], ["base", "elrea"]))

    assert groups() == 1, "no row has options"
    drawn = write_run(tmp_path / "drawn", 2, both, data={"form": "standard", "train_seed": 2})
    assert len(by_setting([read_run(old), read_run(drawn)], ["base", "elrea"])) == 1
    path = new / "predictions.jsonl"
    rows = [{**json.loads(line), "answer_text": "red"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert groups() == 2
    path = new / "config.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": {"turns": "all"}}))
    assert groups() == 2, "the older version learned the last turn alone"
