"""W&B runs of a sweep's jobs: one per job, with reused stages, the chain of artifacts, and without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from elrea.config import plain
from elrea.reporting.wandb.privacy import public
from tests.cli.commands import Ended
from tests.cli.conftest import SECRET
from tests.reporting.wandb_reader import Run, runs

CURVE = ("step", "loss", "learning_rate")


def recorded(folder: Path) -> tuple[Run, dict[str, Any]]:
    """The run below a job's folder, and its summary.json."""
    (run,) = runs(folder)
    return run, json.loads((folder / "summary.json").read_text())


def by_stage(run: Run, summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages' artifacts by the stages' names."""
    names = {stage["key"]: name for name, stage in summary["stages"].items()}
    keys = {name.rpartition("-")[2]: row for name, row in run.artifacts.items()}
    return {names[key]: row for key, row in keys.items() if key in names}


def test_one_run_per_job_grouped_by_sweep(compared: Path) -> None:
    found = [recorded(compared / job)[0] for job in ("0", "1")]
    assert {run.info["group"] for run in found} == {"/".join(compared.parts[-2:])}
    assert len({run.id for run in found}) == 2
    assert [run.config["clustering"]["k"] for run in found] == [2, 3]
    assert [run.summary["cluster_count"] for run in found] == [2, 3]
    assert [run.info["tags"] for run in found] == [["elrea_mmlu"]] * 2


def test_the_config_is_complete(compared: Path) -> None:
    run, _ = recorded(compared / "1")
    saved: Any = OmegaConf.load(compared / "1" / "config.yaml")
    wanted = public(plain(saved))
    assert {name: value for name, value in run.config.items() if name != "_wandb"} == wanted
    assert {"backbone", "data", "adapter", "training", "features", "clustering"} <= set(wanted)


def test_a_reused_stage_keeps_its_seconds_and_curves(whole: Ended, compared: Path) -> None:
    first, made = recorded(whole.folder / "out")
    run, summary = recorded(compared / "0")
    then, now = by_stage(first, made), by_stage(run, summary)
    for name in ("base", "features-train", "clusters", "expert-0", "expert-1"):
        assert (then[name]["reused"], now[name]["reused"]) == (False, True)
        assert now[name]["seconds"] == then[name]["seconds"] > 0
        assert now[name]["upstream"] == then[name]["upstream"]
    for adapter in ("base", "expert-0", "expert-1"):
        for figure in CURVE:
            assert run.column(f"{adapter}/{figure}") == first.column(f"{adapter}/{figure}") != []
        assert run.metrics[f"{adapter}/*"] == f"{adapter}/step"
    assert run.summary["seconds_making"] > 0 and run.summary["seconds_run"] > 0


def test_the_chain_of_artifacts_ends_in_the_ensemble(compared: Path) -> None:
    run, summary = recorded(compared / "1")
    stages = by_stage(run, summary)
    assert set(stages) == set(summary["stages"])
    (ensemble,) = [row for row in run.artifacts.values() if row["type"] == "ensemble"]
    members = ["base", "expert-0", "expert-1", "expert-2"]
    assert ensemble["members"] == members
    wanted = {name: summary["stages"][name]["key"] for name in [*members, "clusters"]}
    assert ensemble["upstream"] == wanted

    def ancestors(name: str) -> set[str]:
        above = stages[name]["upstream"]
        return set(above).union(*(ancestors(other) for other in above))

    assert ancestors("base") == set()
    assert ancestors("expert-2") == {"base", "features-train", "clusters"}
    for name, row in stages.items():
        assert row["reference"] == f"elrea://{row['type']}/{summary['stages'][name]['key']}"
        for other, key in row["upstream"].items():
            assert key == summary["stages"][other]["key"]


def test_the_tables(compared: Path) -> None:
    run, summary = recorded(compared / "1")
    results = run.table("results")
    rows = [dict(zip(results["columns"], row, strict=True)) for row in results["data"]]
    assert [row["strategy"] for row in rows] == list(summary["strategies"])
    assert {(row["clusters"], row["seed"]) for row in rows} == {(3, 0)}
    for row in rows:
        known = summary["strategies"][row["strategy"]]
        assert [row["ci95_low"], row["ci95_high"]] == known["ci95"]
        assert (row["accuracy"], row["delta_to_base"]) == (known["accuracy"], known["delta_to_base"])  # fmt: skip
    clusters = run.table("cluster_table")
    assert clusters["columns"][-1] == "nearest test prompts"
    assert [row[-1] for row in clusters["data"]] == summary["routing"]["nearest"]
    assert sum(row[-1] for row in clusters["data"]) == summary["strategies"]["base"]["n"]


def test_no_file_of_a_run_has_a_secret_of_the_environment(whole: Ended) -> None:
    files = [path for path in whole.folder.rglob("*") if path.is_file()]
    assert len(files) > 50 and any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in whole.out + whole.err
