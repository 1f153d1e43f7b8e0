"""One folder is not overwritten by a run of another configuration, and stays as it is when one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from elrea.commands.jobs.run_folder import check_run_folder, check_version, difference
from elrea.commands.jobs.sweep import claim_named_folder
from elrea.config import save_config
from elrea.errors import ConfigError
from tests.cli.commands import EXAM, QUIET, run

CONFIG: dict[str, Any] = {
    "seed": 0, "store": "a", "plan": False, "until": None, "tracking": {"mode": "offline"},
    "trainer": {"threads": 2, "precision": "32", "devices": 2, "strategy": "one"},
    "clustering": {"_target_": "elrea.method.clustering.kmeans.FaissKmeans", "k": 4},
    "evaluation": {"settings": None, "batch_size": 16, "stop": ["Q:"]}, "data": {"root": "${oc.env:HOME}"},
    "hydra": {"run": {"dir": "out"}},
}  # fmt: skip


def config(**changes: Any) -> Any:
    """The config with other values, by dotted keys with two underscores for a dot."""
    cfg = OmegaConf.create(CONFIG)
    for name, value in changes.items():
        OmegaConf.update(cfg, name.replace("__", "."), value, merge=False)
    return cfg


def begun(folder: Path, state: str = "done", summary: bool = True) -> Path:
    """A folder as a run leaves it."""
    cfg = config()
    del cfg["hydra"]
    save_config(cfg, folder / "config.yaml")
    (folder / "status.json").write_text(json.dumps({"state": state}))
    if summary:
        (folder / "summary.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, r"seed: 0 there, 1 here"),
        ({"trainer__precision": "16"}, r"trainer.precision: 32 there, 16 here"),
        ({"clustering__k": 5}, r"clustering.k: 4 there, 5 here"),
        ({"clustering___target_": "elrea.method.clustering.birch.Birch"}, r"clustering._target_: "),
        ({"evaluation__settings": {"x": {"rate": 1}}}, r"evaluation.settings.x.rate: 1 here only"),
        ({"evaluation__stop": []}, r"evaluation.stop: \['Q:'\] there, \[\] here"),
    ],
)
def test_another_configuration_is_refused(changes: Any, said: str, tmp_path: Path) -> None:
    line = rf"^hydra.run.dir={tmp_path}: holds a run of another configuration \({said}.*\); name another folder, or"
    with pytest.raises(ConfigError, match=line):
        check_run_folder(begun(tmp_path), config(**changes), "hydra.run.dir")


@pytest.mark.parametrize("state", ["done", "running", "stopped", "prepared", "failed"])
def test_results_are_kept_whatever_the_last_state(state: str, tmp_path: Path) -> None:
    folder = begun(tmp_path / "a", state)
    with pytest.raises(ConfigError):
        check_run_folder(folder, config(seed=1), "hydra.run.dir")
    if state == "failed":  # before there was anything
        check_run_folder(
            begun(tmp_path / "b", state, summary=False), config(seed=1), "hydra.run.dir"
        )


def test_the_same_configuration_resumes(tmp_path: Path) -> None:
    """With another speed, and in a version with other keys."""
    folder = begun(tmp_path)
    same = {
        "store": "b", "plan": True, "until": "base", "tracking__mode": "disabled", "trainer__threads": 1,
        "evaluation__batch_size": 1, "evaluation__newer": 3,
    }  # fmt: skip
    check_run_folder(folder, config(**same), "hydra.run.dir")
    check_run_folder(tmp_path / "none", config(), "hydra.run.dir")
    (folder / "config.yaml").write_text("{broken")
    check_run_folder(folder, config(seed=1), "hydra.run.dir")
    assert difference({"name": "one"}, {"name": "two"}) is None
    assert difference({"a.b": 1, "old": 2}, {"a.b": 1, "new": 3}) is None
    assert difference({"a": None}, {"a.b": 1}) == "a.b: 1 here only"
    assert difference({"a.b": 1}, {"a": None}) == "a.b: 1 there only"


def test_runs_and_sweeps_are_told_apart(tmp_path: Path) -> None:
    run_folder = begun(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a single run; name another folder"):
        claim_named_folder(run_folder, ["seed=0,1"])
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a sweep; name another folder"):
        check_run_folder(tmp_path, config(), "hydra.run.dir")


def test_nothing_is_written_by_a_refused_run(tiny: list[str], tmp_path: Path) -> None:
    """As a user starts it; Hydra too leaves no file."""
    words = [
        *tiny,
        *EXAM,
        QUIET,
        "training.max_steps=1",
        "ensemble=base",
        "evaluation.strategies=[base]",
    ]
    done = run(tmp_path, *words)
    assert (done.code, done.err) == (0, "")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    refused = run(tmp_path, *words, "seed=1")
    assert refused.error.startswith(
        "hydra.run.dir=out: holds a run of another configuration (seed: 0"
    )
    assert refused.out == ""
    assert run(tmp_path, *words, "seed=1", "plan=true").code == 0, "a plan writes nothing"
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    again = run(tmp_path, *words, "evaluation.batch_size=3")
    assert (again.code, again.summary) == (0, done.summary)
    swept = run(tmp_path, "-m", *words, "seed=0,1", "hydra.sweep.dir=s", "hydra.sweep.subdir=one")
    assert swept.code == 1 and "hydra.sweep.subdir=" in swept.err
    assert json.loads((tmp_path / "s" / "one" / "status.json").read_text())["state"] == "done"


def test_results_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    """A key that the version did not have may stand for other prompts: the stages' keys tell."""
    folder = begun(tmp_path)
    stages = {"base": {"key": "1" * 16}, "scores": {"key": "2" * 16}}
    (folder / "summary.json").write_text(json.dumps({"stages": stages}))
    newer = config(data__options="letters")
    same = {name: stage["key"] for name, stage in stages.items()}
    check_run_folder(folder, newer, "hydra.run.dir")
    check_version(folder, newer, same)
    check_version(
        folder, config(), {**same, "base": "3" * 16}
    )  # the same version: data were changed
    with pytest.raises(
        ConfigError, match=r"results of an earlier version.*\(base has another key\)"
    ):
        check_version(folder, newer, {**same, "base": "3" * 16})


def test_results_of_other_processes_are_kept_where_their_number_matters(tmp_path: Path) -> None:
    """The stages' keys tell: they have it where something has dropout."""
    folder = begun(tmp_path)
    stages = {"base": {"key": "1" * 16}, "expert-0": {"key": "2" * 16}}
    (folder / "summary.json").write_text(json.dumps({"stages": stages}))
    same = {name: stage["key"] for name, stage in stages.items()}
    more, same_processes = config(trainer__strategy="ddp"), config(trainer__devices=3)
    check_run_folder(folder, more, "hydra.run.dir")
    check_version(folder, more, same)
    check_version(folder, more, {"base": "1" * 16})  # how many experts there are is open still
    check_version(folder, same_processes, {**same, "base": "3" * 16})
    with pytest.raises(
        ConfigError, match=r"dropout masks \(base has .*train together: 1 there, 2 here; name an"
    ):
        check_version(folder, more, {**same, "base": "3" * 16})


@pytest.mark.parametrize(
    ("evaluation", "ensemble", "said"),
    [
        ({"settings": {"elrea": {"rate": 0.5}}}, {"rate": 1.0}, None),
        ({"rate": 0.5}, {"rate": 1.0}, None),
        ({"rate": 0.5}, {"rate": 1.0, "trunk_rate": 0.25}, None),
        (
            {"settings": {"elrea_top1": {"rate": 0.5}}},
            {"rate": 1.0},
            "ensemble.rate: 0.5 there, 1.0 here",
        ),
        ({"rate": 2.0}, {"rate": 1.0}, "ensemble.rate: 0.5 there, 1.0 here"),
        (
            {"settings": {"elrea": {"rate": 0.7}}},
            {"rate": 1.0},
            "ensemble.rate: 0.5 there, 0.7 here",
        ),
    ],
)
def test_the_strategys_settings_may_stand_elsewhere(
    evaluation: Any, ensemble: Any, said: str | None, tmp_path: Path
) -> None:
    """config.yaml shows the strategy with the settings that evaluation.settings and evaluation.rate give it: the same
    command, whose config has them there alone, resumes."""
    composed = config(evaluation=evaluation, ensemble=ensemble)
    composed.hydra.runtime = {"choices": {"ensemble": "elrea"}}
    used = config(evaluation=evaluation, ensemble=dict.fromkeys(ensemble, 0.5))
    del used["hydra"]
    save_config(used, tmp_path / "config.yaml")
    (tmp_path / "status.json").write_text(json.dumps({"state": "done"}))
    if said is None:
        check_run_folder(tmp_path, composed, "hydra.run.dir")
    else:
        with pytest.raises(ConfigError, match=said):
            check_run_folder(tmp_path, composed, "hydra.run.dir")


def test_a_start_decides_the_adapters_shape(tmp_path: Path) -> None:
    """config.yaml shows the shape that is used: the same command, whose config has another there, resumes."""
    taken = {"r": 3, "alpha": 5.0, "targets": ["q_proj"], "rslora": True}
    used = config(adapter={"start": "lora", "dropout": 0.0, **taken})
    del used["hydra"]
    save_config(used, tmp_path / "config.yaml")
    (tmp_path / "status.json").write_text(json.dumps({"state": "done"}))
    shape = {"r": 8, "alpha": None, "targets": "all-linear", "rslora": False}
    check_run_folder(
        tmp_path, config(adapter={"start": "lora", "dropout": 0.0, **shape}), "hydra.run.dir"
    )
    with pytest.raises(ConfigError, match=r"adapter.dropout: 0.0 there, 0.1 here"):
        check_run_folder(
            tmp_path, config(adapter={"start": "lora", "dropout": 0.1, **shape}), "hydra.run.dir"
        )


def test_a_setting_may_replace_others_below_it(tmp_path: Path) -> None:
    """evaluation.settings={steered:{clusters_from:null}}, where the strategy's file has keys there."""
    own = {"settings": {"steered": {"clusters_from": None}}}
    composed = config(evaluation=own, ensemble={"clusters_from": {"epochs": 1, "features": None}})
    composed.hydra.runtime = {"choices": {"ensemble": "steered"}}
    used = config(evaluation=own, ensemble={"clusters_from": None})
    del used["hydra"]
    save_config(used, tmp_path / "config.yaml")
    (tmp_path / "status.json").write_text(json.dumps({"state": "done"}))
    check_run_folder(tmp_path, composed, "hydra.run.dir")
