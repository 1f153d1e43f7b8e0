"""`elrea compare` over runs with several settings: which are pooled, which are compared side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import compare
from elrea.reporting.runs import read_run
from elrea.reporting.settings import by_setting
from tests.cli.compare_runs import (
    BASE,
    BETTER,
    output,
    rewrite,
    write_run,
)


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
