"""Every file in conf/ composes and builds, every experiment runs, and the keys are the frozen ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from elrea.config import build
from elrea.method.ensemble.strategy import Setting
from elrea.method.routing.weights import Router, Routing
from elrea.models.training.steering import member_names
from elrea.pipeline.choices import strategy_nodes
from tests.cli import frozen_keys
from tests.cli.commands import EXAM, QUIET, ROOT, run

CONF = ROOT / "conf"
MOST_LINES = 850
"""Lines of conf/ that are neither blank nor comments. Where a file repeats another's, it can inherit them instead."""
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SWEEPS = {
    "cluster_count": ["evaluation.strategies=[elrea,random_cluster]"],
    "conflict": ["data.conflict=0,1", "evaluation.strategies=[elrea]"],
    "features_cost": ["features.cost=cheap", "evaluation.strategies=[elrea]"],
    "projection": ["evaluation.strategies=[elrea]"],
    "rank": ["evaluation.strategies=[elrea,compute_matched]"],
    "real_text": [],
    "steered": ["ensemble.rank=2", "evaluation.strategies=[steered]"],
    "strategies": ["evaluation.strategies=[elrea,source]"],
    "tune": ["hydra.sweeper.n_trials=2"],
}
"""Experiments that are sweeps -> words that make them small, beside those of `tiny`, which fix most keys they vary."""
ENOUGH = {
    "does_it_pay": ["data.train_per_board=64", "verdict.budget=5"],
    "real_model": ["clustering.pca=4"],
}
"""Experiments that the small run is too small for -> words that make them fit."""
OPTIONS = sorted(
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in CONF.glob("*/**/*.yaml")
    if path.relative_to(CONF).parts[0] not in ("experiment", "hydra", "scale")
    and path.parent.parent.name != "data"
)
TO_BUILD = ("backbone", "data", "adapter", "training", "features", "clustering", "routing", "ensemble", "evaluation",
            "tracking", "trainer")  # fmt: skip


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*words])


def test_the_number_of_choices() -> None:
    assert len(EXPERIMENTS) == 18
    assert len([option for group, option in OPTIONS if group == "ensemble"]) == 36
    assert len([option for group, option in OPTIONS if group == "clustering"]) == 4
    assert {group.partition("/")[0] for group, _ in OPTIONS} == set(TO_BUILD)


@pytest.mark.parametrize("data", ["exam", "mmlu", "maths"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_with_any_data(name: str, data: str) -> None:
    config = composed(f"+experiment={name}", f"data={data}")
    for group in TO_BUILD:
        build(config[group], group)


@pytest.mark.parametrize("name", sorted({*EXPERIMENTS} - {*SWEEPS}))
def test_an_experiment_runs_for_one_step(name: str, tiny: list[str], tmp_path: Path) -> None:
    words = [*tiny, *EXAM, QUIET, "training.max_steps=1", *ENOUGH.get(name, [])]
    ended = run(tmp_path, f"+experiment={name}", *words)
    assert (ended.code, ended.err) == (0, "")
    wanted = build(composed(f"+experiment={name}").evaluation, "evaluation").strategies
    assert sorted(ended.summary["strategies"]) == sorted(wanted)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_ready_sweep_runs_for_one_step(name: str, tiny: list[str], tmp_path: Path) -> None:
    words = [f"+experiment={name}", *tiny, *EXAM, QUIET, "training.max_steps=1", "seed=0"]
    ended = run(tmp_path, *words, *SWEEPS[name])
    assert ended.code == 0, ended.err
    jobs = {"conflict": 2, "tune": 2}.get(name, 1)
    assert f"{jobs} of {jobs} jobs are done" in ended.out
    bases = list((tmp_path / ".elrea" / "base").glob("*/manifest.json"))
    assert len(bases) == (
        2 if name in ("conflict", "steered") else 1
    )  # steered: one for its clusters


def test_optuna_never_chooses_by_the_test_set(tiny: list[str], tmp_path: Path) -> None:
    words = ["+experiment=tune", *tiny, *EXAM, QUIET, "evaluation.split=test"]
    ended = run(tmp_path, *words, "hydra.sweeper.n_trials=1")
    assert ended.code == 1
    assert "say evaluation.split=dev, and look at test once" in ended.err


@pytest.mark.parametrize(("name", "data"), [("mmlu", "Mmlu"), ("bbh", "Bbh"), ("math", "Maths")])
def test_a_scale_sets_data_and_training(name: str, data: str) -> None:
    """The paper's setting (section 5), which words on the command line override."""
    small, paper = (
        composed(f"+experiment=elrea_{name}", f"scale={scale}", "adapter.r=64")
        for scale in ("small", "paper")
    )
    built = {group: build(paper[group], group) for group in TO_BUILD}
    assert type(build(small.data, "data")).__name__ == "Exam"
    assert type(built["data"]).__name__ == data and built["data"].hub is True
    assert name == "math" or type(built["data"].train).__name__ == "Less"
    assert (built["backbone"].name, built["backbone"].quantise) == (
        "google/gemma-1.1-2b-it",
        "4bit",
    )
    assert (built["training"].epochs, built["training"].learning_rate) == (2, 5e-5)
    step = built["training"].batch_size * built["training"].accumulate
    assert (step, built["backbone"].max_length) == (16, 2048)
    assert (built["adapter"].r, built["adapter"].dropout) == (64, 0.1)
    assert (built["features"].projection.d, built["features"].form) == (8192, "adam")
    assert type(built["features"].projection).__name__ == "Rademacher"
    assert type(built["clustering"]).__name__ == "Birch"
    longest = 248 if name == "mmlu" else 848
    assert (built["evaluation"].by, built["evaluation"].max_new_tokens) == ("generation", longest)


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("name", ["", *EXPERIMENTS])
def test_no_other_model_gets_rates_that_were_tuned_for_the_built_in_one(
    name: str, scale: str
) -> None:
    """The files in ensemble/ have such rates: without `evaluation.rate` a control would train at 0.25 of a model's."""
    config = composed(f"scale={scale}", *([f"+experiment={name}"] if name else []))
    assert config.evaluation.rate == (None if config.backbone._target_.endswith("Tiny") else 1)


def test_a_run_without_experts(tiny: list[str], tmp_path: Path) -> None:
    words = ["ensemble=base", "evaluation.strategies=[backbone]", "training.max_steps=1"]
    ended = run(tmp_path, *tiny, *EXAM, QUIET, *words)
    assert (ended.code, ended.err) == (0, "")
    assert list(ended.summary["strategies"]) == ["backbone", "base"]
    assert list(ended.summary["stages"]) == ["base", "scores"]


def test_a_sweep(tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, "-m", *tiny, *EXAM, QUIET, "seed=0,1", "plan=true", "hydra.sweep.dir=out")
    assert (ended.code, ended.err) == (0, "")
    plans = [line for line in ended.out.splitlines() if line.startswith("Plan: ")]
    assert [line[-6:] for line in plans] == ["seed 0", "seed 1"]
    assert not (tmp_path / "multirun").exists(), "hydra.sweep.dir names the only folder"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_builds(group: str, option: str) -> None:
    config = composed(f"{group}={option}")
    root = group.partition("/")[0]
    build(config[root], root)


def test_random_clusters_take_their_sizes_from_any_clustering() -> None:
    built = build(composed("clustering=random", "clustering@clustering.of=birch").clustering, "x")
    assert type(built.of).__name__ == "Birch"


def test_every_strategy_says_what_it_needs() -> None:
    config = composed()
    setting = Setting(
        build(config.adapter, "adapter"), build(config.training, "training"), 3, ["x", "y"]
    )
    routing = Routing(torch.zeros(1, 3), Router(), ["x"], ["x", "y"])
    nodes = strategy_nodes(CONF, ["all"])
    assert len(nodes) == 36
    for name, node in nodes.items():
        strategy = build(node, name)
        specs = strategy.adapters(setting)
        steered = [spec.steering for spec in specs.values() if spec.steering]
        trained = {
            "backbone",
            "base",
            *specs,
            *(n for each in steered for n in member_names(each.clusters)),
        }
        assert set(strategy.members(routing)) <= trained, name


def test_a_choice_has_what_it_inherits() -> None:
    """By Hydra, and by `strategy_nodes` for the strategies that `ensemble=` does not name."""
    small, auto = composed("adapter=small"), composed("trainer=sharded")
    assert (small.adapter.r, small.adapter.targets) == (1, "all-linear")
    assert (auto.trainer.devices, auto.trainer.precision) == (2, "32-true")
    node = strategy_nodes(CONF, ["elrea_top3"])["elrea_top3"]
    assert node == composed("ensemble=elrea_top3").ensemble
    assert (node.top_k, node.base_share) == (3, True)


def test_every_named_file_is_a_choice() -> None:
    """Files that only others inherit from are not in a group's folder, where `--help` would list them."""
    shared = {path.stem for path in CONF.glob("*.yaml")}
    assert shared == {"config", "data_instructions", "data_limits", "data_mixture", "data_source"}


def test_the_keys_are_the_frozen_ones() -> None:
    """An added, renamed or removed key is part of what users type: it has to be meant."""
    now, before = frozen_keys.keys(), frozen_keys.frozen()
    changed = [f"+ {key}" for key in sorted(now - before)] + [
        f"- {key}" for key in sorted(before - now)
    ]
    assert not changed, (
        f"conf/ has other keys than tests/cli/frozen_keys.txt: {'; '.join(changed)}. "
        f"To accept them: {frozen_keys.ACCEPT}"
    )


def test_files_inherit_instead_of_repeating() -> None:
    lines = [
        line
        for path in CONF.rglob("*.yaml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    assert len(lines) <= MOST_LINES


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_opens_with_its_purpose_and_cost(path: Path) -> None:
    text = path.read_text(encoding="utf-8").removeprefix("# @package _global_\n")
    head = text[: re.search(r"^(?!#)", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    assert head.startswith("# ") and "\n# Costs: " in head
