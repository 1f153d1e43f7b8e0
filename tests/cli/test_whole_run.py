"""Output and files of one small run."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from elrea.models.training.moments import Moments
from tests.cli.commands import Ended
from tests.reporting.wandb_reader import runs

STRATEGIES = ["backbone", "base", "elrea", "elrea_top1", "uniform"]
STAGES = ["base", "features-train", "clusters", "expert-0", "expert-1", "features-test", "scores"]


@pytest.fixture(scope="module")
def out(whole: Ended) -> Path:
    return whole.folder / "out"


@pytest.fixture(scope="module")
def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def test_the_screen(whole: Ended) -> None:
    assert whole.err == ""
    lines = whole.out.splitlines()
    assert lines[0] == "Plan: exam (built-in exam, not MMLU), seed 0"
    plan = [line.split() for line in lines if line.strip().endswith("to do")]
    assert [words[0] for words in plan] == STAGES
    table = lines.index(next(line for line in lines if line.startswith("Results")))
    rows = [line.split()[0] for line in lines[table + 3 : table + 8]]
    assert rows == STRATEGIES
    assert "not MMLU" in lines[table + 8]
    assert lines[-3:-1] == ["Everything is in out", "To send this run to W&B:"]
    assert lines[-1].startswith("  wandb sync out/wandb/offline-run-")
    assert max(map(len, lines)) <= 100


def test_the_config_is_resolved_and_keeps_the_environment_out(out: Path, words: list[str]) -> None:
    config: Any = OmegaConf.load(out / "config.yaml")
    assert config["training"]["epochs"] == 2 and config["seed"] == 0
    assert config["tracking"]["tags"] == ["elrea_mmlu"]
    assert "${" not in (out / "config.yaml").read_text()  # the store was given in words


def test_the_summary(summary: dict) -> None:
    assert summary["data"] == "exam (built-in exam, not MMLU)"
    assert (summary["backbone"], summary["seed"]) == ("small", 0)
    assert sorted(summary["strategies"]) == STRATEGIES
    for name, row in summary["strategies"].items():
        low, high = row["ci95"]
        assert 0 <= low <= row["accuracy"] <= high <= 1 and row["n"] == 12
        assert len(row["correct_sha256"]) == 64
        if name == "base":
            assert row["delta_to_base"] is row["delta_ci95"] is None
        else:
            base = summary["strategies"]["base"]["accuracy"]
            assert row["delta_to_base"] == pytest.approx(row["accuracy"] - base, abs=2e-6)
            assert row["delta_ci95"][0] <= row["delta_ci95"][1]
    # Three members of which each weighs something, and a gradient for each of two checkpoints.
    passes = {name: row["forward_passes"] for name, row in summary["strategies"].items()}
    assert passes == {"backbone": 1, "base": 1, "uniform": 3, "elrea": 7, "elrea_top1": 6}
    assert list(summary["stages"]) == STAGES, "the order of the work"
    for stage in summary["stages"].values():
        assert len(stage["key"]) == 16 and stage["seconds"] > 0 and stage["reused"] is False
    assert sum(summary["clusters"]["sizes"]) == 32 and len(summary["clusters"]["sizes"]) == 2
    by_source = summary["clusters"]["by_source"]
    assert [sum(counts) for counts in zip(*by_source.values(), strict=True)] == summary["clusters"][
        "sizes"
    ]
    assert {"elrea", "python", "torch", "transformers", "peft"} <= set(summary["versions"])


def test_the_predictions_add_up_to_the_summary(out: Path, summary: dict) -> None:
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    for name, figures in summary["strategies"].items():
        correct = [row["strategies"][name]["choice"] == row["answer"] for row in rows]
        assert correct == [row["strategies"][name]["correct"] for row in rows]
        bits = "".join("01"[right] for right in correct)
        assert hashlib.sha256(bits.encode()).hexdigest() == figures["correct_sha256"]
        assert sum(correct) / 12 == pytest.approx(figures["accuracy"], abs=1e-6)
    for row in rows:
        assert row["answer"] in "ABCD" and 0 <= row["w_base"] <= 1
        assert len(row["weights"]) == 2 and all(weight >= 0 for weight in row["weights"])


def test_the_plots(out: Path) -> None:
    for name in ("accuracy", "subjects", "clusters", "features", "routing", "training"):
        picture = matplotlib.image.imread(out / "plots" / f"{name}.png")
        assert min(picture.shape[:2]) > 200 and picture.std() > 0


def test_every_adapter_loads_in_peft_alone(out: Path, small_model: Path) -> None:
    about = json.loads((out / "ensemble" / "ensemble.json").read_text())
    assert about["members"] == ["base", "expert-0", "expert-1"]
    assert (about["backbone"]["name"], about["format"]) == ("small", 1)
    ids = torch.arange(3, 20)[None]
    logits = []
    for name in about["members"]:
        backbone = AutoModelForCausalLM.from_pretrained(small_model)
        model = PeftModel.from_pretrained(backbone, str(out / "ensemble" / name)).eval()
        assert any(t.abs().max() > 0 for n, t in model.named_parameters() if "lora_B" in n)
        logits.append(model(input_ids=ids).logits)
    assert not torch.equal(logits[0], logits[1]) and not torch.equal(logits[1], logits[2])


def test_the_ensemble_folder_is_whole(out: Path) -> None:
    folder = out / "ensemble"
    listed = json.loads((folder / "ensemble.json").read_text())["files"]
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    there.pop("ensemble.json")
    assert {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in there.items()} == listed
    centroids = load_file(folder / "routing" / "centroids.safetensors")["centroids"]
    assert centroids.shape == (2, 16)
    for epoch in (1, 2):
        assert Moments.load(folder / "routing" / f"epoch_{epoch}").step > 0
    assert not [name for name in there if name.endswith((".bin", ".pt", ".ckpt", ".pkl"))]
    card = (folder / "README.md").read_text()
    assert "base_model: small" in card and "| elrea |" in card and "not MMLU" in card


def test_one_wandb_run_has_everything(out: Path, summary: dict) -> None:
    (run,) = runs(out)
    assert run.exit_code == 0 and run.info["tags"] == ["elrea_mmlu"]
    assert run.config["training"]["epochs"] == 2
    for adapter in ("base", "expert-0", "expert-1"):
        assert len(run.column(f"{adapter}/loss")) == len(run.column(f"{adapter}/step")) > 0
    clusters = run.table("cluster_table")["data"]
    assert [row[:2] for row in clusters] == [
        [c, n] for c, n in enumerate(summary["clusters"]["sizes"])
    ]
    assert all(row[2] in ("Alder", "Birch") and 0.5 <= row[3] <= 1 for row in clusters)
    predictions = run.table("predictions")
    assert len(predictions["data"]) == summary["strategies"]["base"]["n"]
    assert predictions["columns"][:4] == ["id", "source", "category", "answer"]
    assert set(summary["strategies"]) < set(predictions["columns"])
    keys = {stage["key"]: name for name, stage in summary["stages"].items()}
    rows = {name.rpartition("-")[2]: row for name, row in run.artifacts.items()}
    assert [row["type"] for key, row in rows.items() if key not in keys] == ["ensemble"]
    found = {keys[key]: row for key, row in rows.items() if key in keys}
    assert set(found) == set(summary["stages"])
    chain = ["base", "features-train", "clusters", "expert-1", "scores"]
    for earlier, later in pairwise(chain):
        assert found[later]["upstream"][earlier] == summary["stages"][earlier]["key"]
    assert found["base"]["upstream"] == {}
    final = {row[0]: row[1] for row in run.table("results")["data"]}
    assert final == {name: row["accuracy"] for name, row in summary["strategies"].items()}
    for picture in ("accuracy", "subjects", "clusters", "features", "routing", "training"):
        assert run.media(f"plots/{picture}").is_file()
    assert run.summary["strategies"]["elrea"]["accuracy"] == final["elrea"]
    assert run.summary["accuracy"] == final["elrea"] and run.summary["strategy"] == "elrea"
    assert run.summary["w_base"] == summary["routing"]["w_base"]
    making = sum(stage["seconds"] for stage in summary["stages"].values())
    assert run.summary["seconds_making"] == pytest.approx(making)
    assert run.summary["seconds_run"] > making, "every stage was made by this run"
    assert run.summary["clusters"]["sizes"] == summary["clusters"]["sizes"]
    assert run.summary["cluster_table"]["nrows"] == len(clusters)
    for name in ("routing_entropy", "gradient_conflict", "forward_passes", "delta_to_base"):
        assert isinstance(run.summary[name], int | float), name
