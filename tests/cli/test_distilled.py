"""`routing=distilled` from the command line to `ensemble/` in use: no gradient of a prompt that is answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.commands import export
from elrea.data.exam.exam import Exam
from elrea.errors import StoreError
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble
from elrea.method.features.gradient import GradientFeatures
from elrea.models.device import Device
from tests.cli.commands import EXAM, QUIET, Ended, run

WORDS = ["routing=distilled", "routing.width=8", "routing.epochs=20", QUIET]
SCORED = "evaluation.strategies=[base,elrea,elrea_one,elrea_no_base,uniform]"


@pytest.fixture(scope="module")
def base(tiny: list[str], home: Path, whole: Ended) -> list[str]:
    """Words of a run on the store that a run with routing=gradient has filled."""
    assert whole.code == 0
    return ["+experiment=elrea_mmlu", *tiny, *EXAM, *WORDS, SCORED, f"store={home / 'store'}"]


@pytest.fixture(scope="module")
def distilled(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    ended = run(tmp_path_factory.mktemp("distilled"), *base)
    assert (ended.code, ended.err) == (0, "")
    return ended


def summary(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ended.folder / "out" / "summary.json").read_text())
    return found


def test_only_the_router_is_new(distilled: Ended) -> None:
    stages = summary(distilled)["stages"]
    new = {name for name, stage in stages.items() if not stage["reused"]}
    assert new == {"router", "routing", "scores"}
    assert {"base", "features-train", "features-test", "clusters", "expert-0"} <= set(stages)
    plan = [
        line.split()[0] for line in distilled.out.splitlines() if line.strip().endswith("to do")
    ]
    assert plan == ["router", "routing", "scores"]


def test_the_same_again_is_there_and_weighing_learns_nothing_new(
    base: list[str], distilled: Ended, tmp_path: Path
) -> None:
    again = run(tmp_path / "again", *base)
    assert again.summary == distilled.summary
    assert all(stage["reused"] for stage in summary(again)["stages"].values())
    warm = run(tmp_path / "warm", *base, "routing.temperature=2", "plan=true")
    plan = [line.split()[0] for line in warm.out.splitlines() if line.strip().endswith("to do")]
    assert plan == ["scores"]


def test_it_says_how_it_agrees_with_the_gradients(distilled: Ended, whole: Ended) -> None:
    found = summary(distilled)["routing"]["distilled"]
    rows = {
        name: [
            json.loads(line)
            for line in (ended.folder / "out" / "predictions.jsonl").read_text().splitlines()
        ]
        for name, ended in (("mine", distilled), ("gradient", whole))
    }
    nearest = {name: [row["weights"].index(max(row["weights"])) for row in r] for name, r in rows.items()}  # fmt: skip
    same = [a == b for a, b in zip(nearest["mine"], nearest["gradient"], strict=True)]
    assert found["top1"] == pytest.approx(sum(same) / 12, abs=1e-6)
    off = [abs(a["w_base"] - b["w_base"]) for a, b in zip(rows["mine"], rows["gradient"], strict=True)]  # fmt: skip
    assert found["w_base"] == pytest.approx(sum(off) / 12, abs=1e-5) and sum(off) > 0
    assert found["prompts"] == 12 and found["dev"] == 8 and found["held_out"] is False
    (line,) = (row for row in distilled.out.splitlines() if row.startswith("Distilled router"))
    assert (
        f"12 test prompts' gradients: nearest cluster the same for {100 * found['top1']:.1f} %"
        in line
    )


def test_a_prompts_price_is_one_forward_pass_beside_the_members(distilled: Ended) -> None:
    passes = {name: row["forward_passes"] for name, row in summary(distilled)["strategies"].items()}
    assert passes == {"base": 1, "uniform": 3, "elrea": 4, "elrea_no_base": 3, "elrea_one": 2}


def test_a_router_that_reads_an_early_layer_costs_that_much_of_a_pass(
    base: list[str], tmp_path: Path
) -> None:
    ended = run(tmp_path, *base, "routing.layer=early", "routing.compare=false")
    assert ended.summary["strategies"]["elrea_one"]["forward_passes"] == 1.5, "one of two layers"


def test_without_comparison_no_test_prompts_gradient_is_taken(
    base: list[str], distilled: Ended, tmp_path: Path
) -> None:
    ended = run(tmp_path, *base, "routing.compare=false")
    assert "features-test" not in ended.summary["stages"]
    assert ended.summary["strategies"] == distilled.summary["strategies"]
    assert "top1" not in ended.summary["routing"]["distilled"]
    assert "Distilled router" not in ended.out


def test_without_dev_prompts_training_prompts_are_held_out(base: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *base, "evaluation.split=dev", "routing.held_out=0.25")
    found = ended.summary["routing"]["distilled"]
    assert (ended.code, found["held_out"], found["dev"]) == (0, True, 8)


def test_the_folder_answers_as_the_run_did_and_takes_no_gradient(
    distilled: Ended, small_model: Path, monkeypatch
) -> None:
    folder = distilled.folder / "out" / "ensemble"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {"routing/router.safetensors", "routing/router.json"} <= there
    assert not [name for name in there if "epoch" in name or "moments" in name]
    assert "predicts a prompt's" in (folder / "README.md").read_text()
    ensemble = Ensemble.load(
        folder, backbone=str(small_model), top_k=1, base_share=False, device=Device("cpu", threads=1)
    )  # fmt: skip
    graded: list[bool] = []
    for module in ensemble.backbone.model.modules():
        module.register_forward_hook(lambda *_: graded.append(torch.is_grad_enabled()))
    monkeypatch.setattr(GradientFeatures, "reader", lambda *_a, **_k: pytest.fail("a gradient"))
    test = list(Exam(boards=2, train_per_board=16, dev_per_board=4, test_per_board=6).load().test)
    lines = (distilled.folder / "out" / "predictions.jsonl").read_text().splitlines()
    scores = ensemble.score(test, [example.choices for example in test])
    for example, sums, line in zip(test, scores, lines, strict=True):
        told = json.loads(line)["strategies"]["elrea_one"]
        assert example.choices[sums.index(max(sums))] == told["choice"]
    for route, line in zip(ensemble.route(test), lines, strict=True):
        assert 1 - max(route.cosines) == pytest.approx(json.loads(line)["w_base"], abs=1e-5)
        assert sorted(route.weights.values()) == [0, 0, 1]
    ensemble.generate(test[:2], Decoding(max_new_tokens=2))
    assert graded and not any(graded)


def test_an_export_has_what_its_router_needs(distilled: Ended, tmp_path: Path) -> None:
    """The base adapter too, whose hidden states it reads, where it is not among the adapters."""
    ensemble, to = distilled.folder / "out" / "ensemble", tmp_path / "to"
    export.main([str(ensemble), "--to", str(to), "--as", "peft", "--only", "expert-0"])
    routing = json.loads((to / "routing.json").read_text())
    assert routing["learned"] and routing["nearest"] == ["expert-0", None]
    assert (
        routing["router"]["class"] == "Distilled"
        and "routing/router.safetensors" in routing["files"]
    )
    for name in routing["files"]:
        assert (to / name).read_bytes() == (ensemble / name).read_bytes()
    for path in (ensemble / "base").iterdir():
        assert (to / "routing" / "base" / path.name).read_bytes() == path.read_bytes()
    assert "the trained router" in (to / "README.md").read_text()


def test_a_damaged_router_is_refused(distilled: Ended, small_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(distilled.folder / "out" / "ensemble", tmp_path / "copy")
    (copy / "routing" / "router.safetensors").write_bytes(b"no tensors")
    with pytest.raises(StoreError, match=r"router\.safetensors: checksum mismatch"):
        Ensemble.load(copy, backbone=str(small_model))


def test_a_layer_that_is_not_there_is_refused_before_anything_is_trained(
    tiny: list[str], tmp_path: Path
) -> None:
    ended = run(tmp_path, *tiny, *EXAM, *WORDS, "routing.layer=9", f"store={tmp_path / 's'}")
    assert ended.error.startswith("routing.layer=9: the backbone has 2 layers")
    assert not (tmp_path / "s" / "base").exists()
