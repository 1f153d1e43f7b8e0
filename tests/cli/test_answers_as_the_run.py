"""A run's ensemble answers by the strategy that the run is about: in Python, merged, and behind an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.commands import merge
from elrea.commands.proxy.addressing import Adapters, same_as
from elrea.method.ensemble.ensemble import Ensemble
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.likelihood import log_likelihoods
from elrea.method.ensemble.routing_json import answering, member_alone
from elrea.models.device import Device
from tests.cli.commands import QUIET, Ended, run

KINDS = (("Say where", "here"), ("How many is", "9 9 9"))
ROWS = "base,elrea,elrea_one,elrea_top1,elrea_no_base,moe_routing,moe_merging"
CARDS = {
    "elrea_one": "The nearest expert answers, without the base adapter.",
    "elrea_top1": "The nearest expert answers, with the base adapter.",
    "elrea_no_base": "All experts answer together, without the base adapter.",
    "moe_routing": "Every adapted layer sums its members' outputs",
    "moe_merging": "Every adapted layer has one adapter per prompt",
}


@pytest.fixture(scope="module")
def words(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Prompts of two kinds, each with its own answer; experts that learn a lot."""
    home = tmp_path_factory.mktemp("data")
    for name, first, count in (("train", 0, 48), ("test", 48, 6)):
        rows = [
            {"instruction": f"{KINDS[i % 2][0]} {i}", "response": KINDS[i % 2][1]}
            for i in range(first, first + count)
        ]
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"data.train={home}/train.jsonl", f"data.test={home}/test.jsonl"]
    rates = ["training.learning_rate=0.001", "training.expert_learning_rate=0.02"]
    more = [f"evaluation.strategies=[{ROWS}]", f"store={home}/store", QUIET]
    return [*tiny, "data=jsonl", *files, *rates, *more]


@pytest.fixture(scope="module", params=["elrea", *CARDS])
def ended(
    request: pytest.FixtureRequest, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Ended]:
    done = run(tmp_path_factory.mktemp("run"), *words, f"ensemble={request.param}")
    assert (done.code, done.err) == (0, "")
    return request.param, done


def loaded(ended: Ended, model: Path, **given: Any) -> Ensemble:
    return Ensemble.load(
        ended.folder / "out", backbone=str(model), device=Device("cpu", threads=1), **given
    )


def test_it_answers_as_the_row_of_its_run(ended: tuple[str, Ended], small_model: Path) -> None:
    """The loss per token of each test response, and of no other row."""
    name, done = ended
    ensemble = loaded(done, small_model)
    assert isinstance(ensemble.joint, LayerwiseModel) == name.startswith("moe")
    prompts = [f"{KINDS[i % 2][0]} {i}" for i in range(48, 54)]
    tokenizer = ensemble.backbone.tokenizer
    asked = [
        (
            encoded.prompt,
            [(*tokenizer.encode(f" {answer}", add_special_tokens=False), tokenizer.eos_token_id)],
        )
        for encoded, (_, answer) in zip(
            ensemble.prompter.test(ensemble.examples(prompts))[0], KINDS * 3, strict=True
        )
    ]
    weights = torch.tensor([list(route.weights.values()) for route in ensemble.route(prompts)])
    found = log_likelihoods(ensemble.joint, asked, weights, batch_size=4, pad_id=ensemble.backbone.pad_id)  # fmt: skip
    got = [-log / len(asked[n][1][0]) for n, (log,) in enumerate(found)]
    lines = (done.folder / "out" / "predictions.jsonl").read_text().splitlines()
    told = [json.loads(line)["strategies"] for line in lines]
    assert got == pytest.approx([one[name]["loss"] for one in told], abs=1e-4)
    for other in set(ROWS.split(",")) - {name}:
        assert got != pytest.approx([one[other]["loss"] for one in told], abs=1e-3), other


def test_its_card_says_so(ended: tuple[str, Ended]) -> None:
    name, done = ended
    text = (done.folder / "out" / "ensemble" / "README.md").read_text()
    assert CARDS.get(name, "Routing weights mix them prompt by prompt.") in text


def test_what_is_typed_goes_before_the_runs_settings(
    ended: tuple[str, Ended], small_model: Path
) -> None:
    """Every one of these strategies chooses experts as ELREA's does."""
    _, done = ended
    for typed, count in (
        ({"top_k": 2, "base_share": True}, 3),
        ({"top_k": 1, "base_share": False}, 1),
    ):
        (route,) = loaded(done, small_model, **typed).route(["Say where 3"])
        assert sum(weight > 0 for weight in route.weights.values()) == count, typed


def test_one_adapter_answers_where_an_engine_can_have_but_one(
    ended: tuple[str, Ended], small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, done = ended
    facts = json.loads((done.folder / "out" / "ensemble" / "ensemble.json").read_text())
    assert answering(facts) == ["expert-0", "expert-1"]
    for route in loaded(done, small_model).route(["Say where 3", "How many is 8"]):
        sent = Adapters("experts", ["expert-0", "expert-1"]).addressed({}, route)["lora"]
        assert [one["scale"] for one in sent] == [float(route.nearest == c) for c in (0, 1)]
        assert member_alone(route.weights) == f"expert-{route.nearest}"
    merge.main([str(done.folder / "out"), "--out", str(tmp_path / "sum")])
    without = "left out, with weight 0: base" in capsys.readouterr().out
    assert without == (name in ("elrea_one", "elrea_no_base"))


def test_the_proxy_says_whether_the_answers_are_the_runs(
    ended: tuple[str, Ended], small_model: Path
) -> None:
    name, done = ended
    same = {"elrea_one": ("name", "experts"), "moe_routing": ("members",)}
    assert same_as(loaded(done, small_model).strategy) == same.get(name, ())


def test_reports_show_the_weights_of_the_runs_strategy(
    ended: tuple[str, Ended], small_model: Path
) -> None:
    _, done = ended
    page = (done.folder / "out" / "report.html").read_text()
    row = json.loads((done.folder / "out" / "predictions.jsonl").read_text().splitlines()[0])
    (route,) = loaded(done, small_model).route([f"{KINDS[0][0]} 48"])
    shown = ", ".join(
        f"{member} {weight:.2f}"
        for member, weight in sorted(route.weights.items(), key=lambda one: -one[1])
        if weight
    )
    assert shown in page, row
