"""The exported ensemble of a run about ELREA with clusters of its own: by states, by sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elrea.data.exam.exam import Exam
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from tests.cli.commands import EXAM, QUIET, run

CPU = Device("cpu", threads=1)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("elrea_states", ["ensemble.top_k=1"]),
        ("elrea_source", ["ensemble.clustering.min_size=4"]),
    ],
)
def test_it_answers_by_the_clusters_of_the_strategy(
    name: str, more: list[str], tiny: list[str], small_model: Path, tmp_path: Path
) -> None:
    """ELREA, which is scored beside it, has other clusters and other experts."""
    words = [*tiny, *EXAM, QUIET, f"store={tmp_path / 'store'}", "ensemble.rate=20"]
    ended = run(
        tmp_path, "+experiment=elrea_mmlu", *words, f"ensemble={name}", *more,
        "evaluation.strategies=[base,elrea]",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    folder = tmp_path / "out"
    key = ended.summary["stages"][f"{name}/clusters"]["key"]
    (made,) = (tmp_path / "store").glob(f"*/{key}/clusters.safetensors")
    centroids = load_file(folder / "ensemble" / "routing" / "centroids.safetensors")["centroids"]
    torch.testing.assert_close(centroids, load_file(made)["centroids"], rtol=0, atol=0)
    ensemble = Ensemble.load(folder, backbone=str(small_model), device=CPU)
    assert ensemble.members == ["base", "expert-0", "expert-1"]
    told = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    test = list(Exam(boards=2, train_per_board=16, dev_per_board=4, test_per_board=6).load().test)
    scores = ensemble.score(test)
    rows = [row["strategies"] for row in told]
    for example, row, sums in zip(test, rows, scores, strict=True):
        loss = -sums[example.answer or 0] / len(" A")
        assert loss == pytest.approx(row[name]["loss"], abs=2e-3)
    assert max(abs(row[name]["loss"] - row["elrea"]["loss"]) for row in rows) > 5e-3


@pytest.mark.parametrize("routing", ["words", "distilled"])
def test_a_learned_router_serves_a_strategy_with_clusters_of_its_own(
    routing: str, tiny: list[str], small_model: Path, tmp_path: Path
) -> None:
    """It is trained on these clusters, and the export needs no gradient; features of another kind route themselves."""
    words = [*tiny, *EXAM, QUIET, f"store={tmp_path / 'store'}", "ensemble.rate=20"]
    ended = run(
        tmp_path, "+experiment=elrea_mmlu", *words, "ensemble=steered", f"routing={routing}",
        "evaluation.strategies=[base,elrea_states]",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    stages = ended.summary["stages"]
    assert {"steered/router", "steered/routing"} <= stages.keys()
    assert "steered/features-test" not in stages
    assert not [name for name in stages if name.startswith("elrea_states/rout")]
    folder = tmp_path / "out"
    ensemble = Ensemble.load(folder, backbone=str(small_model), device=CPU)
    assert not list((folder / "ensemble").rglob("*moments*"))
    test = list(Exam(boards=2, train_per_board=16, dev_per_board=4, test_per_board=6).load().test)
    told = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for example, row, sums in zip(test, told, ensemble.score(test), strict=True):
        loss = -sums[example.answer or 0] / len(" A")
        assert loss == pytest.approx(row["strategies"]["steered"]["loss"], abs=2e-3)
