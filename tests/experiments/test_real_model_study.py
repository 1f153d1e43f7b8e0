"""The study of a real model: its data, its rows, and the overrides of its runs."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from elrea.errors import DataError, ElreaError
from elrea.method.features.states import States
from elrea.reporting.runs import FinishedRun
from elrea.store.files import read_json, write_json
from experiments.real_model import study
from experiments.real_model.mixture import COUNTS, DRAWS, write
from experiments.real_model.rows import (
    DISTILLED,
    FACTORS,
    FIRST,
    FORMS,
    JOINT,
    MATCHED,
    ROWS,
    SHARED,
    STEERED,
    beside,
)
from experiments.real_model.study import Study, _overrides, settings_of
from experiments.real_model.table import (
    OF_CLUSTERS,
    apart,
    clusters_of,
    clusters_table,
    training_passes,
    with_rows,
)
from tests.real_files import real_data

CONF = study.ROOT / "conf"


def test_every_row_is_a_choice_with_a_rate_chosen_or_shared() -> None:
    assert set(ROWS) <= {path.stem for path in (CONF / "ensemble").glob("*.yaml")}
    untrained = {"backbone", "base", "uniform", "elrea_top1", "elrea_one"}
    assert set(ROWS) == untrained | set(FACTORS) | set(SHARED)
    assert set(SHARED.values()) <= set(FACTORS)


def test_a_run_trains_each_row_at_its_own_rate() -> None:
    """A row's `rate` multiplies the base adapter's or the experts' rate; its factor is always of the former."""
    own = {row: rates[1] for row, rates in FACTORS.items()}
    words = _overrides(2e-3, own | {new: own[old] for new, old in SHARED.items()})
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*study.SETTINGS, *words])
    assert (config.training.learning_rate, config.training.expert_learning_rate) == (2e-3, 5e-4)
    rates = {row: node.rate for row, node in config.evaluation.settings.items()}
    experts = {"random_cluster", "random_weighted", "continued"}
    for row, rate in rates.items():
        of = 5e-4 if row in experts else 2e-3
        assert rate * of == pytest.approx(own[SHARED.get(row, row)] * 2e-3), row
    assert set(rates) == set(ROWS) - {
        "backbone", "base", "uniform", "elrea", "elrea_top1", "elrea_one", "elrea_states", "instruction_embedding",
    }  # fmt: skip


def test_every_row_gets_its_best_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loss that is lowest at the rate that a run trains a row at, nearest to a wanted one."""
    wanted = {"base": 5e-4, **{row: rates[-1] * 5e-4 for row, rates in FACTORS.items()}}
    ran: dict[str, list[str]] = {}

    def losses(_self: Study, name: str) -> dict[str, float]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", settings_of(ran[name]))
        assert config.evaluation.split == "dev"
        training, settings = config.training, config.evaluation.settings or {}
        rates = {"base": training.learning_rate, "elrea": training.expert_learning_rate}
        for row in settings:
            experts = row in {"random_cluster", "continued"}
            rates[row] = settings[row].rate * rates["elrea" if experts else "base"]
        scored = {"base", *config.evaluation.strategies} & {*wanted}
        return {row: abs(rates[row] - wanted[row]) for row in scored}

    monkeypatch.setattr(Study, "run", lambda _self, own: ran.update(own))
    monkeypatch.setattr(Study, "dev_loss", losses)
    made = Study(tmp_path, tmp_path, 1, "small", 4).rates()
    assert made["base"] == 5e-4
    assert made["factors"] == {row: rates[-1] for row, rates in FACTORS.items()}
    assert {row: len(each) for row, each in made["dev_loss"].items()} == {
        "base": 4, **{row: len(rates) for row, rates in FACTORS.items()},
    }  # fmt: skip


def test_a_finished_run_of_other_settings_is_not_taken(tmp_path: Path) -> None:
    found = Study(tmp_path, tmp_path, 1, "small", 4)
    command = found.command("a", 0, ["base"])
    folder = tmp_path / "runs" / "a" / ".hydra"
    folder.mkdir(parents=True)
    (folder.parent / "summary.json").write_text("{}")
    lines = [f"- {word}\n" for word in settings_of(command)]
    (folder / "overrides.yaml").write_text("".join(lines))
    found.run({"a": command})
    with pytest.raises(ElreaError, match=r"runs/a is of other settings .*, seed=0, seed=1\)"):
        found.run({"a": found.command("a", 1, ["base"])})


def test_a_distilled_row_has_the_experts_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run differs by the router alone, so that it takes the same stages from the store."""
    commands: dict[str, list[str]] = {}
    monkeypatch.setattr(Study, "run", lambda _self, own: commands.update(own))
    rates = {"base": 1e-3, "factors": {row: rates[0] for row, rates in FACTORS.items()}}
    Study(tmp_path, tmp_path, 1, "small", 4).final(rates, [3])
    assert set(commands) == {"test-small-4-3", "distilled-small-4-3"}
    made = []
    for name in ("test-small-4-3", "distilled-small-4-3"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            made.append(compose("config", settings_of(commands[name])))
    differs = {key for key in made[0] if made[0][key] != made[1][key]}
    assert differs == {"routing", "evaluation"}
    assert list(made[1].evaluation.strategies) == list(DISTILLED.values())
    assert not made[1].evaluation.settings and made[1].routing.compare is False


def test_the_first_rows_train_as_all_rows_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their runs differ by what is scored alone, so that all rows take their stages from the store."""
    commands: dict[str, list[str]] = {}
    monkeypatch.setattr(Study, "run", lambda _self, own: commands.update(own))
    for first in (True, False):
        found = Study(tmp_path, tmp_path, 1, "small", 4, first)
        factors = {row: rates[0] for row, rates in FACTORS.items()}
        found.final({"base": 1e-3, "factors": factors}, [3])
    made = []
    for name in ("test-first-small-4-3", "test-small-4-3", "matched-first-small-4-3"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            made.append(compose("config", settings_of(commands[name])))
    assert {key for key in made[0] if made[0][key] != made[1][key]} == {"data", "evaluation"}
    assert {key for key in made[0].data if made[0].data[key] != made[1].data[key]} == {"test"}
    assert set(FIRST) < set(ROWS) and list(made[0].evaluation.strategies) == list(FIRST)
    own, whole, matched = (dict(each.evaluation.settings) for each in made)
    assert own == {row: whole[row] for row in own}
    assert set(own) == {"random_cluster", "random_weighted", "continued", "source"}
    assert matched == {row: whole[row] for row in MATCHED}
    assert list(made[2].evaluation.strategies) == list(MATCHED) and made[2].data == made[0].data
    assert made[2].training.learning_rate == made[1].training.learning_rate


@pytest.mark.parametrize("best", [(1e-3, 2, 6e-5), (2.5e-4, 2, 5e-4), (1e-3, 1, 1.25e-4)])
def test_a_base_adapter_that_is_trained_less_is_scored_where_dev_finds_it_better(
    best: tuple[float, int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a loss that is least for one of the pairs; the first is the rows' own."""
    commands: dict[str, list[str]] = {}

    def training(name: str) -> tuple[float, int, float]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            found = compose("config", settings_of(commands[name])).training
        return found.learning_rate, found.epochs, found.expert_learning_rate

    def losses(_self: Study, name: str) -> dict[str, float]:
        assert "evaluation.split=dev" in commands[name] and "seed=10" in commands[name]
        return {"base": 0.0, "elrea": 1.0 if training(name) == best else 3.0}

    monkeypatch.setattr(Study, "run", lambda _self, own: commands.update(own))
    monkeypatch.setattr(Study, "dev_loss", losses)
    rates = {
        "base": 1e-3, "factors": dict.fromkeys(FACTORS, 0.06), "dev_loss": {"elrea": [2.0, 2.5]},
    }  # fmt: skip
    found = Study(tmp_path, tmp_path, 1, "small", 4, first=True)
    found.final_joint(rates, [3, 4])
    assert found.joint(rates) == read_json(tmp_path / "joint-small-4.json")
    assert len(found.joint(rates)["dev_loss"]) == 7
    tested = {name for name in commands if name.startswith("joint-first")}
    if best == (1e-3, 2, 6e-5):
        assert not tested
    else:
        assert tested == {"joint-first-small-4-3", "joint-first-small-4-4"}
        assert {training(name) for name in tested} == {best}
        scored = commands["joint-first-small-4-3"]
        assert f"evaluation.strategies=[{','.join(JOINT.values())}]" in scored
        assert f"data.test={tmp_path}/data/test-half.jsonl" in scored


@pytest.mark.parametrize("best", range(len(FORMS)))
def test_the_steered_rows_have_the_form_that_is_best_on_dev(
    best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters are those of ELREA, at the run's own base adapter, which is trained as in every other run."""
    commands: dict[str, list[str]] = {}
    losses = {f"steered-dev-small-4-{place}": float(place != best) for place in range(len(FORMS))}
    monkeypatch.setattr(Study, "run", lambda _self, own: commands.update(own))
    monkeypatch.setattr(
        Study, "dev_loss", lambda _self, name: {"base": 0.0, "steered": losses[name]}
    )
    Study(tmp_path, tmp_path, 1, "small", 4, first=True).final_steered({"base": 1e-3}, [3])
    assert read_json(tmp_path / "steered-small-4.json")["chosen"] == FORMS[best]
    assert set(commands) == {*losses, "steered-first-small-4-3"}
    for name, command in commands.items():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", settings_of(command))
        dev = name in losses
        assert (config.evaluation.split == "dev", config.seed == study.TUNED) == (dev, dev)
        assert (config.training.learning_rate, config.training.epochs) == (1e-3, 2)
        form = FORMS[int(name[-1])] if dev else FORMS[best]
        rows = [*config.evaluation.settings]
        assert rows == (["steered"] if dev else [*STEERED])
        assert all(
            config.evaluation.settings[row] == {"clusters_from": None, **form} for row in rows
        )
        assert {*rows} <= {*config.evaluation.strategies}


def test_names_beside_a_plot_are_apart_and_near_their_places() -> None:
    assert apart([0.0, 0.5, 1.0], 0.1) == [0.0, 0.5, 1.0]
    assert apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    found = apart([0.1, 0.19, 0.31, 0.31, 0.9], 0.1)
    assert found == pytest.approx([0.0775, 0.1775, 0.2775, 0.3775, 0.9])


def test_the_distilled_rows_stand_beside_the_others() -> None:
    def run(rows: list[str], right: bool) -> FinishedRun:
        correct = {row: [right] for row in rows}
        losses: dict[str, list[float | None]] = {row: [0.5] for row in rows}
        return FinishedRun(
            Path("x"), 0, [("a", "1")], correct, "elrea", {}, losses, {row: {} for row in rows}
        )

    both = with_rows(
        run(["elrea", "base"], False), run(["elrea", "elrea_one", "base"], True), DISTILLED
    )
    assert both.correct == {
        "elrea": [False], "base": [False], "elrea_distilled": [True], "elrea_one_distilled": [True],
    }  # fmt: skip
    assert set(both.losses) == set(both.figures) == set(both.correct)
    with pytest.raises(DataError, match="its test items are not those"):
        with_rows(both, replace(both, items=[("b", "1")]), DISTILLED)


def test_the_clusters_of_each_seed_stand_in_the_table(tmp_path: Path) -> None:
    figures = dict.fromkeys(OF_CLUSTERS, 0.5)
    runs = []
    for seed in (3, 4):
        clusters = {**figures, "by_source": {"a": [seed, 0], "b": [1, 2]}, "nmi_source": seed / 10}
        (tmp_path / str(seed)).mkdir()
        write_json(tmp_path / str(seed) / "summary.json", {"clusters": clusters})
        runs.append(FinishedRun(tmp_path / str(seed), seed, [], {}, "elrea", {}, {}, {}))
    found = clusters_of(runs)
    assert found["4"]["by_source"] == {"a": [4, 0], "b": [1, 2]}
    lines = clusters_table(found).split("\n")
    assert lines[0] == "| | seed 3 | seed 4 |"
    assert lines[2:5] == [
        "| a | 3 / 0 | 4 / 0 |",
        "| b | 1 / 2 | 1 / 2 |",
        "| agreement with the sources (NMI) | 0.30 | 0.40 |",
    ]
    assert len(lines) == 4 + len(OF_CLUSTERS)


def test_only_the_studys_runs_are_tabled() -> None:
    assert beside("test-first-small-4-0", "matched") == "matched-first-small-4-0"
    with pytest.raises(DataError, match="mine: give the study's runs on test"):
        beside("mine", "matched")


def test_passes_count_the_features() -> None:
    settings = {"training.epochs": 2, "training.expert_epochs": 3}
    found = {row: training_passes(row, settings) for row in ROWS}
    assert (found["backbone"], found["base"], found["source"]) == (0, 2, 2)
    assert found["compute_matched"] == found["continued"] == found["random_cluster"] == 5
    assert found["elrea"] == found["elrea_top1"] == found["compute_matched_passes"] == 7
    assert training_passes("elrea_distilled", settings) == 7.5
    assert training_passes("elrea_joint", {**settings, "training.epochs": 1}) == 5
    assert training_passes("steered", settings) == 2 + 2 + 5
    own = {f"evaluation.settings.{row}.epochs": 2 for row in STEERED}
    assert {training_passes(row, settings | own) for row in STEERED} == {6}
    assert found["elrea_states"] == 5.5 == 5 + States().passes(2) / 2
    with pytest.raises(DataError, match="gated: not a row of this study"):
        training_passes("gated", settings)


def test_an_unfinished_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "_one", lambda self, name, command: int(name == "b"))
    found = Study(tmp_path, tmp_path, 1, "small", 4)
    with pytest.raises(ElreaError, match=r"logs/b\.txt says why this run failed; 1 did"):
        found.run({"a": [], "b": []})


def test_no_question_is_in_two_splits_and_draws_differ(tmp_path: Path) -> None:
    root = real_data("t0").parent
    real_data("flan_cot")
    real_data("gsm8k")
    write(root, tmp_path / "one")
    write(root, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 3 + 2 * len(DRAWS)
    questions: dict[str, set[str]] = {}
    for name in names:
        text = (tmp_path / "one" / name).read_text(encoding="utf-8")
        assert text == (tmp_path / "two" / name).read_text(encoding="utf-8"), "the same again"
        rows = [json.loads(line) for line in text.split("\n") if line]
        counts: dict[str, int] = defaultdict(int)
        for row in rows:
            counts[row["source"]] += 1
            assert "choices" not in row or 0 <= row["answer"] < len(set(row["choices"]))
        if name == "test-half.jsonl":
            assert counts == {source: tests // 2 for source, (tests, *_) in COUNTS.items()}
        else:
            number = ("test", "dev", "small", "large").index(
                name.split(".")[0].split("-")[min(1, name.count("-"))]
            )
            assert counts == {source: each[number] for source, each in COUNTS.items()}
        questions[name] = {f"{row['instruction']} {row.get('choices')}" for row in rows}
        assert len(questions[name]) == len(rows)
    assert questions["test-half.jsonl"] < questions["test.jsonl"]
    held = questions["test.jsonl"] | questions["dev.jsonl"]
    assert not questions["test.jsonl"] & questions["dev.jsonl"]
    drawn = [each for name, each in questions.items() if name.startswith("train")]
    assert not any(each & held for each in drawn)
    assert len({frozenset(each) for each in drawn}) == len(drawn)
