"""ensemble=steered from the command to the reports, and its exported ensemble in use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from elrea.commands import export, merge, neighbours
from elrea.data.exam.exam import Exam
from elrea.errors import ConfigError
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from tests.cli.commands import EXAM, QUIET, Ended, run

CPU = Device("cpu", threads=1)
RATE = "ensemble.rate=20"
"""High, so that a few steps of the small model steer it visibly."""


@pytest.fixture(scope="module")
def words(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    store = tmp_path_factory.mktemp("store")
    return ["+experiment=elrea_mmlu", *tiny, *EXAM, QUIET, f"store={store}"]


@pytest.fixture(scope="module")
def hard(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Hard routing, and other forms beside it."""
    others = "evaluation.strategies=[base,steered_diagonal,steered_random,elrea_one]"
    own = "evaluation.settings={steered_random:{rate:20.0}}"
    return run(tmp_path_factory.mktemp("hard"), *words, "ensemble=steered", RATE, others, own)


@pytest.fixture(scope="module")
def soft(hard: Ended, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    given = ["ensemble=steered", RATE, "ensemble.soft=true", "evaluation.strategies=[base]"]
    return run(tmp_path_factory.mktemp("soft"), *words, *given)


def test_every_form_is_a_row_and_what_they_share_is_made_once(hard: Ended, soft: Ended) -> None:
    assert (hard.code, hard.err) == (0, "") and (soft.code, soft.err) == (0, "")
    found = hard.summary
    rows = ["base", "steered_diagonal", "steered_random", "elrea_one", "steered"]
    assert set(found["strategies"]) == set(rows)
    stages = set(found["stages"])
    assert {"steered_diagonal/base", "steered_diagonal/clusters", "steered/steered"} <= stages
    assert {"steered_diagonal/steered", "steered_random/steered"} <= stages
    assert not {"steered/base", "steered/clusters", "steered_random/features-train"} & stages
    keys = {name: stage["key"] for name, stage in found["stages"].items()}
    assert (
        len({keys[f"{n}/steered"] for n in ("steered", "steered_diagonal", "steered_random")}) == 3
    )
    # Routing does not change the training.
    assert soft.summary["stages"]["steered/steered"]["key"] == keys["steered/steered"]
    assert found["strategies"]["steered"]["forward_passes"] == 3.0  # one, and the gradient's two
    assert "score, 2 members" in hard.out and "score, 0 members" not in hard.out
    page = (hard.folder / "out" / "report.html").read_text()
    assert "steered has clusters" in page, "those of one epoch, not those that are shown"
    assert "steered_diagonal" in page.replace("<wbr>", "")


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_exported_ensemble_scores_as_the_run(
    kind: str, request: pytest.FixtureRequest, small_model: Path
) -> None:
    ended: Ended = request.getfixturevalue(kind)
    folder = ended.folder / "out"
    ensemble = Ensemble.load(folder, backbone=str(small_model), device=CPU)
    assert ensemble.members == ["steered-0", "steered-1"]
    assert repr(ensemble).startswith("<Ensemble of 2 steered clusters in ")
    told: list[dict[str, Any]] = [
        json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()
    ]
    test = list(Exam(boards=2, train_per_board=16, dev_per_board=4, test_per_board=6).load().test)
    routes = ensemble.route(test)
    for route in routes:
        weights = list(route.weights.values())
        assert sum(weights) == pytest.approx(1)
        assert (max(weights) == 1) is (kind == "hard")
    scores = ensemble.score(test, routes=routes)
    for example, row, sums in zip(test, told, scores, strict=True):
        outcome = row["strategies"]["steered"]
        assert -sums[example.answer or 0] / len(" A") == pytest.approx(outcome["loss"], abs=2e-3)
    losses = [row["strategies"]["steered"]["loss"] for row in told]
    assert (
        max(abs(a - row["strategies"]["base"]["loss"]) for a, row in zip(losses, told, strict=True))
        > 0.01
    )
    texts = ensemble.generate([test[0], test[1]], Decoding(4))
    assert len(texts) == 2
    with pytest.raises(ConfigError, match="one adapter that clusters steer: top_k"):
        Ensemble.load(folder, backbone=str(small_model), device=CPU, top_k=1)


def test_the_base_adapter_of_its_routing_is_not_merged(hard: Ended, tmp_path: Path) -> None:
    """ΔW is the mean of the clusters' updates, by hand."""
    folder = hard.folder / "out"
    merge.main([str(folder), "--out", str(tmp_path / "merged"), "--threads", "1"])
    names = [folder / "ensemble" / f"steered-{c}" for c in range(2)] + [tmp_path / "merged"]
    updates: list[dict[str, torch.Tensor]] = []
    for place in names:
        shape = json.loads((place / "adapter_config.json").read_text())
        tensors = load_file(place / "adapter_model.safetensors")
        updates.append({
            a: shape["lora_alpha"] / shape["r"] * tensors[a.replace("lora_A", "lora_B")] @ tensors[a]
            for a in tensors if "lora_A" in a
        })  # fmt: skip
    for name, update in updates[2].items():
        mean = (updates[0][name] + updates[1][name]) / 2
        torch.testing.assert_close(update, mean, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="base"):
        words = [str(folder), "--out", str(tmp_path / "other"), "--weights", "base=1"]
        merge.main(words)
    export.main([str(folder), "--to", str(tmp_path / "served"), "--as", "peft"])
    routing = json.loads((tmp_path / "served" / "routing.json").read_text())
    assert routing["nearest"] == ["steered-0", "steered-1"] and not routing["steered"]["soft"]
    assert not (tmp_path / "served" / "base").exists()
    for name in routing["nearest"]:
        found, own = (
            load_file(at / name / "adapter_model.safetensors")
            for at in (tmp_path / "served", folder / "ensemble")
        )
        assert all(torch.equal(found[key], own[key]) for key in own)


def test_every_cluster_is_a_plain_peft_folder(hard: Ended, small_model: Path) -> None:
    """PEFT alone gives the logits of the ensemble, prompt by prompt."""
    folder = hard.folder / "out" / "ensemble"
    ensemble = Ensemble.load(folder, backbone=str(small_model), device=CPU)
    prompts = ["Say one.", "Is 3 + 4 = 7?"]
    routes = ensemble.route(prompts)
    found = ensemble.score(prompts, [["A", "B"]] * 2, routes=routes)
    encoded = ensemble.prompter.test(ensemble.examples(prompts))[0]
    choices = [ensemble.backbone.tokenizer.encode(f" {c}", add_special_tokens=False) for c in "AB"]
    for route, sums, prompt in zip(routes, found, encoded, strict=True):
        backbone = AutoModelForCausalLM.from_pretrained(small_model)
        name = f"steered-{route.nearest}"
        model = PeftModel.from_pretrained(backbone, str(folder / name)).eval()
        for choice, got in zip(choices, sums, strict=True):
            ids = torch.tensor([[*prompt.prompt, *choice]])
            with torch.no_grad():
                logs = model(input_ids=ids).logits[0].log_softmax(-1)
            at = len(prompt.prompt) - 1
            wanted = sum(float(logs[at + i, token]) for i, token in enumerate(choice))
            assert got == pytest.approx(wanted, abs=1e-4)


def test_clusters_need_no_base_adapter(words: list[str], tmp_path: Path) -> None:
    """From the start's gradient, and from token counts."""
    own = ["ensemble=steered", "evaluation.strategies=[base]"]
    start = run(tmp_path / "start", *words, *own, "ensemble.clusters_from.epochs=0")
    assert (start.code, start.err) == (0, "")
    routing = start.folder / "out" / "ensemble" / "routing"
    assert sorted(path.name for path in routing.iterdir()) == ["centroids.safetensors", "epoch_0"]
    tokens = "{_target_:elrea.method.features.tokens.Tokens}"
    counted = run(tmp_path / "counted", *words, *own, f"ensemble.clusters_from.features={tokens}")
    assert (counted.code, counted.err) == (0, "")
    assert "steered/base" not in counted.summary["stages"]
    assert counted.summary["strategies"]["steered"]["forward_passes"] == 1.0


def test_sources_steer_without_clusters(words: list[str], tmp_path: Path) -> None:
    ended = run(
        tmp_path, *words, "ensemble=steered", "ensemble.clusters=source", "ensemble.added=1", "ensemble.rank=2",
        "evaluation.strategies=[base]",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert set(ended.summary["stages"]) == {"base", "scores", "steered/steered", "steered/scores"}


def test_the_plan_shows_the_training_with_time_and_memory(
    hard: Ended, words: list[str], tmp_path: Path
) -> None:
    given = ["ensemble=steered", "ensemble.rank=3", "evaluation.strategies=[base,steered_diagonal]"]
    ended = run(tmp_path, *words, *given, "plan=true")
    assert (ended.code, ended.err) == (0, "")
    lines = {line.split()[0]: line for line in ended.out.splitlines() if line.split()}
    assert lines["steered/steered"].split()[2] != "-", "no expected time"
    assert "r=3, 252 of them factors of 2 clusters" in " ".join(ended.out.split())
    assert "memory, steered " in ended.out and "memory, steered_diagonal" in ended.out


def test_neighbours_of_a_run_without_experts(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its only clusters are those that steer, of a base adapter of one epoch."""
    mine = [*words[:-1], f"store={tmp_path}/store", "ensemble=steered", "evaluation.strategies=[base]"]  # fmt: skip
    ended = run(tmp_path, *mine)
    assert (ended.code, ended.err) == (0, "")
    neighbours.main([str(ended.folder / "out"), "What is 2 + 3?", "-k", "3"])
    assert len(capsys.readouterr().out.splitlines()) == 4
    shutil.rmtree(tmp_path / "store" / "clusters")
    with pytest.raises(ConfigError, match=r"its stage features-train is not in .*; call this in"):
        neighbours.main([str(ended.folder / "out"), "What is 2 + 3?"])
