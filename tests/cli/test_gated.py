"""ensemble=gated and ensemble=arrow from the command to the reports, and their exported ensembles in use."""

from __future__ import annotations

import json
import shutil
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import ArrowConfig, create_arrow_model
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from transformers import AutoModelForCausalLM

from elrea.commands import export, merge
from elrea.errors import ConfigError, StoreError
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble
from elrea.method.ensemble.ensemble_folder import used_members
from elrea.models.device import Device
from elrea.store.files import with_checksum
from tests.cli.commands import QUIET, Ended, run

CPU = Device("cpu", threads=1)
KINDS = (("Say where", "here"), ("How many is", "9 9 9"))


def write(path: Path, first: int, count: int) -> None:
    """Prompts of two kinds, each with its own answer."""
    rows = []
    for i in range(first, first + count):
        words, answer = KINDS[i % 2]
        rows.append({"instruction": f"{words} {i}", "response": answer, "source": answer[0]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def words(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Experts that learn a lot, and base adapters that do not."""
    home = tmp_path_factory.mktemp("data")
    for name, first, count in (("train", 0, 48), ("dev", 48, 20), ("test", 68, 10)):
        write(home / f"{name}.jsonl", first, count)
    files = [f"data.{name}={home}/{name}.jsonl" for name in ("train", "dev", "test")]
    rates = ["training.learning_rate=0.001", "training.expert_learning_rate=0.02"]
    return [*tiny, "data=jsonl", *files, *rates, QUIET, f"store={home}/store"]


@pytest.fixture(scope="module")
def gated(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    rows = "evaluation.strategies=[base,elrea_one,arrow]"
    return run(tmp_path_factory.mktemp("gated"), *words, "ensemble=gated", rows)


@pytest.fixture(scope="module")
def arrow(gated: Ended, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    given = ["ensemble=arrow", "ensemble.top_k=1", "evaluation.strategies=[base]"]
    return run(tmp_path_factory.mktemp("arrow"), *words, *given)


def asked() -> list[str]:
    """The test prompts, in the order of the predictions."""
    return [f"{KINDS[i % 2][0]} {i}" for i in range(68, 78)]


def nearest(ended: Ended) -> list[int]:
    return [row["weights"].index(max(row["weights"])) for row in predictions(ended)]


def predictions(ended: Ended) -> list[dict[str, Any]]:
    text = (ended.folder / "out" / "predictions.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(ended: Ended, name: str) -> list[float]:
    return [row["strategies"][name]["loss"] for row in predictions(ended)]


def test_the_gate_compares_what_a_run_on_dev_scores(
    gated: Ended, words: list[str], tmp_path: Path
) -> None:
    """Each dev example's difference is that of `base` and `elrea_one` in a run with evaluation.split=dev."""
    assert (gated.code, gated.err) == (0, "")
    gate = gated.summary["gates"]["gated"]
    assert gate["measure"] == "loss" and gate["left_out"] == 0
    assert sum(cluster["examples"] for cluster in gate["clusters"]) == 20
    (path,) = (Path(words[-1].partition("=")[2]) / "paired").glob("*/pairs.json")
    pairs = json.loads(path.read_text())["examples"]
    rows = "evaluation.strategies=[base,elrea_one]"
    dev = run(tmp_path, *words, "ensemble=elrea_one", rows, "evaluation.split=dev")
    assert (dev.code, dev.err) == (0, "")
    ids = [row["id"] for row in predictions(dev)]
    told = dict(
        zip(ids, zip(losses(dev, "base"), losses(dev, "elrea_one"), strict=True), strict=True)
    )
    assert {name: tuple(pair["loss"]) for name, pair in pairs.items()} == {
        name: pytest.approx(pair, abs=1e-4) for name, pair in told.items()
    }
    for c, cluster in enumerate(gate["clusters"]):
        gains = [told[n][0] - told[n][1] for n, pair in pairs.items() if pair["cluster"] == c]
        assert cluster["difference"] == pytest.approx(sum(gains) / len(gains), abs=1e-4)


def test_it_answers_as_the_trunk_or_the_expert_and_says_so(gated: Ended) -> None:
    summary = gated.summary
    served = [cluster["serves"] for cluster in summary["gates"]["gated"]["clusters"]]
    assert any(served)
    expert, base = losses(gated, "elrea_one"), losses(gated, "base")
    wanted = [e if served[c] else b for c, e, b in zip(nearest(gated), expert, base, strict=True)]
    assert losses(gated, "gated") == wanted and wanted != base
    passes = {name: row["forward_passes"] for name, row in summary["strategies"].items()}
    assert passes["gated"] == passes["elrea_one"] and passes["arrow"] == 1
    assert {"features-dev", "paired-gated"} <= set(summary["stages"])
    assert summary["stages"]["paired-gated"]["strategies"] == ["gated"]
    line = f"gated: by 20 dev examples, experts serve in {sum(served)} of 2 clusters: "
    assert line in " ".join(gated.out.split())
    page = (gated.folder / "out" / "report.html").read_text()
    assert "<h2>Who serves: gated</h2>" in page and "gain, nats per token" in page


def test_the_exported_ensemble_answers_as_the_run(gated: Ended, small_model: Path) -> None:
    folder = gated.folder / "out"
    facts = json.loads((folder / "ensemble" / "ensemble.json").read_text())
    gate = gated.summary["gates"]["gated"]
    serves = [c for c, cluster in enumerate(gate["clusters"]) if cluster["serves"]]
    assert facts["strategy"]["serves"] == serves
    assert facts["gate"] == {"measure": gate["measure"], "clusters": gate["clusters"]}
    assert (
        f"(clusters: {', '.join(map(str, serves))})"
        in (folder / "ensemble" / "README.md").read_text()
    )
    ensemble = Ensemble.load(folder, backbone=str(small_model), device=CPU)
    prompts = asked()
    routes = ensemble.route(prompts)
    assert [route.nearest for route in routes] == nearest(gated)
    for route in routes:
        assert sorted(route.weights.values()) == [0, 0, 1]
        member = f"expert-{route.nearest}" if route.nearest in serves else "base"
        assert route.weights[member] == 1
    assert len(ensemble.generate(prompts[:2], Decoding(3), routes=routes[:2])) == 2
    with pytest.raises(ConfigError, match="answers as GatedExperts does: top_k"):
        Ensemble.load(folder, backbone=str(small_model), device=CPU, top_k=1)


@pytest.mark.parametrize(
    "wrong", [{"serves": [7]}, {"serves": None}, {"class": "Single", "member": "base"}]
)
def test_a_changed_description_is_refused(
    wrong: dict[str, Any], gated: Ended, small_model: Path, tmp_path: Path
) -> None:
    source = gated.folder / "out" / "ensemble"
    copy = tmp_path / "ensemble"
    shutil.copytree(source, copy)
    facts = json.loads((copy / "ensemble.json").read_text())
    facts.pop("sha256", None)
    facts["strategy"] = wrong if "class" in wrong else facts["strategy"] | wrong
    (copy / "ensemble.json").write_text(json.dumps(with_checksum(facts)))
    with pytest.raises(StoreError, match=r"ensemble\.json"):
        Ensemble.load(copy, backbone=str(small_model), device=CPU)


@pytest.mark.parametrize("which", ["gated", "arrow"])
def test_a_uniform_sum_has_the_members_that_answer(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, capsys
) -> None:
    folder = request.getfixturevalue(which).folder / "out"
    facts = json.loads((folder / "ensemble" / "ensemble.json").read_text())
    serves = facts["strategy"].get("serves", [0, 1])
    wanted = [*(["base"] if which == "gated" else []), *(f"expert-{c}" for c in sorted(serves))]
    left = [name for name in facts["members"] if name not in wanted]
    merge.main([str(folder), "--out", str(tmp_path / "sum")])
    said = capsys.readouterr().out
    line = f"the sum of {', '.join(wanted)}"
    assert (
        line + (f"; left out, with weight 0: {', '.join(left)}" if left else "")
    ) in said.splitlines()
    assert json.loads((tmp_path / "sum" / "adapter_config.json").read_text())["r"] == 2 * len(
        wanted
    )
    export.main(
        [str(folder), "--to", str(tmp_path / "one"), "--as", "peft", "--weights", "uniform"]
    )
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "sum" / name).read_bytes()
    merge.main([str(folder), "--out", str(tmp_path / "own"), "--weights", "base=1"])  # by name, any


def test_data_without_dev_examples_needs_the_clusters(words: list[str], tmp_path: Path) -> None:
    without = [*words, "data.dev=null", "ensemble=gated", "evaluation.strategies=[base]"]
    said = run(tmp_path / "without", *without).error
    assert (
        "ensemble=gated: dev examples decide" in said
        and "say data.dev=<file>, or name the clusters: 'ensemble.serves=[0]'" in said
    )
    rows = "evaluation.strategies=[base,gated]"
    said = run(tmp_path / "row", *words, "data.dev=null", "ensemble=elrea", rows).error
    assert said.endswith("name the clusters: 'evaluation.settings={gated:{serves:[0]}}'")
    late = run(tmp_path / "late", *without, "ensemble.serves=[5]").error
    assert late == "ensemble=gated: serves names cluster 5, and there will be 0 to 1"
    on_dev = run(tmp_path / "dev", *words, "ensemble=gated", "evaluation.split=dev")
    assert "evaluation.split=dev scores them" in on_dev.error
    rows = "evaluation.strategies=[all]"
    listed = run(tmp_path / "all", *words, "data.dev=null", "ensemble=elrea", rows, "plan=true")
    assert "left out, since dev examples decide them and this data has none" in listed.err
    by_hand = run(tmp_path / "hand", *without, "ensemble.serves=[1]")
    assert (by_hand.code, by_hand.err) == (0, "")
    assert "gates" not in by_hand.summary and "paired-gated" not in by_hand.summary["stages"]


def test_a_wide_trunk_and_a_distilled_router(
    gated: Ended, words: list[str], small_model: Path, tmp_path: Path
) -> None:
    given = [
        "ensemble=gated_wide",
        "ensemble.rate=1e-6",
        "routing=distilled",
        "evaluation.strategies=[base]",
    ]
    plan = run(tmp_path, *words, *given, "plan=true")
    lines = {line.split()[0]: line.split() for line in plan.out.splitlines() if line.split()}
    assert {"paired-gated_wide", "router"} <= set(lines) and "features-dev" not in lines
    assert lines["paired-gated_wide"][2] != "-", "no expected time"
    ended = run(tmp_path, *words, *given)
    assert (ended.code, ended.err) == (0, "")
    stages = set(ended.summary["stages"])
    assert {"parameter-matched", "paired-gated_wide"} <= stages and "features-dev" not in stages
    ensemble = Ensemble.load(tmp_path / "out", backbone=str(small_model), device=CPU)
    assert ensemble.members[0] == "parameter-matched"
    facts = json.loads((tmp_path / "out" / "ensemble" / "ensemble.json").read_text())
    serves = facts["strategy"]["serves"]
    wanted = {"parameter-matched", *(ensemble.members[1 + c] for c in serves)}
    assert "base" in facts["members"] and set(used_members(facts)) == wanted
    (route,) = ensemble.route(["Say where 3"])
    assert sorted(route.weights.values()) == [0, 0, 1]


def test_arrow_scores_alike_in_its_export_and_in_peft(
    arrow: Ended, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By PEFT's own model of the exported folders, whose power iteration is given enough steps to converge."""
    name = "top_right_singular_vec_from_BA"
    longer = partialmethod(getattr(ArrowLoraLinearLayer, name), iters=3000)
    monkeypatch.setattr(ArrowLoraLinearLayer, name, longer)
    assert (arrow.code, arrow.err) == (0, "")
    folder = arrow.folder / "out"
    assert "features-test" not in arrow.summary["stages"], "nothing is routed by prompts"
    assert [path.name for path in (folder / "ensemble" / "routing").iterdir()] == [
        "centroids.safetensors"
    ]
    ensemble = Ensemble.load(folder, backbone=str(small_model), device=CPU)
    assert ensemble.members == ["expert-0", "expert-1"]
    prompts, answers = asked(), [KINDS[i % 2][1] for i in range(10)]
    routes = ensemble.route(prompts)
    assert routes[0].nearest == -1 and routes[0].cosines == []
    (scored,) = zip(*ensemble.score(prompts, [[a] for a in answers], routes=routes), strict=True)
    config = ArrowConfig(top_k=1, rng_seed=0)
    folders = [str(folder / "ensemble" / name) for name in ensemble.members]
    theirs = create_arrow_model(
        AutoModelForCausalLM.from_pretrained(small_model), folders, config
    ).eval()
    encoded = ensemble.prompter.test(ensemble.examples(prompts))[0]
    end = ensemble.backbone.tokenizer.eos_token_id
    for prompt, answer, got, loss in zip(
        encoded, answers, scored, losses(arrow, "arrow"), strict=True
    ):
        ids = ensemble.backbone.tokenizer.encode(f" {answer}", add_special_tokens=False)
        with torch.no_grad():
            found = theirs(input_ids=torch.tensor([[*prompt.prompt, *ids]])).logits[0]
        logs = found.log_softmax(-1)[len(prompt.prompt) - 1 :]
        each = [float(logs[i, token]) for i, token in enumerate([*ids, end])]
        assert got == pytest.approx(sum(each[:-1]), abs=2e-3)
        assert loss == pytest.approx(-sum(each) / len(each), abs=1e-3), "as the run scored it"
    assert len(ensemble.generate(prompts[:1], Decoding(3))) == 1
    card = (folder / "ensemble" / "README.md").read_text()
    assert "Arrow routing: in every layer" in card and "no prompt is routed" in card


def test_lm_eval_scores_as_the_ensemble(gated: Ended, arrow: Ended, small_model: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval (the extra `harness`) is not installed")
    from lm_eval.api.instance import Instance

    from elrea.commands.lm_eval_model import ElreaLM

    for ended in (gated, arrow):
        folder = ended.folder / "out"
        lm = ElreaLM(path=folder, backbone=str(small_model), device="cpu", batch_size=4)
        prompts = asked()[:4]
        pairs = [Instance("loglikelihood", {}, (prompt, " here"), 0) for prompt in prompts]
        found = [log for log, _ in lm.loglikelihood(pairs, disable_tqdm=True)]
        wanted = lm.ensemble.score(prompts, [["here"]] * 4)
        assert found == pytest.approx([log for (log,) in wanted], abs=1e-4)
        (blank,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("here",), 0)])
        assert blank < 0
