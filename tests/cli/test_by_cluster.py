"""One adapter that uses the clusters (told, balanced, projected), and sources as clusters with a text router."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from elrea import Ensemble
from elrea.models.device import Device
from elrea.models.training.schedule import Schedule
from tests.cli.commands import QUIET, Ended, run

ROWS = ["base", "elrea", "tagged", "balanced", "projected", "elrea_source"]


def rows(kind: str, count: int) -> list[dict[str, Any]]:
    """Two sources that a reader tells apart by a word."""
    words = {"colours": ("paint", ["red", "blue"]), "numbers": ("count", ["one", "two"])}
    made = []
    for i in range(count):
        # A third of the first source.
        source = "colours" if i % 3 == 0 else "numbers"
        verb, choices = words[source]
        row = {"instruction": f"{verb} {kind} {i}", "response": choices[i % 2], "choices": choices}
        made.append({**row, "source": source})
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by_cluster")
    for kind, count in (("train", 36), ("test", 8)):
        lines = [json.dumps(row) + "\n" for row in rows(kind, count)]
        (folder / f"{kind}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def words(tiny: list[str]) -> list[str]:
    return [
        *tiny,
        "data=jsonl",
        "data.train=train.jsonl",
        "data.test=test.jsonl",
        "data.options=text",
        QUIET,
    ]


@pytest.fixture(scope="module")
def ended(home: Path, words: list[str]) -> Ended:
    small = "evaluation.settings={elrea_source:{clustering:{min_size:4}}}"
    done = run(home, *words, f"evaluation.strategies=[{','.join(ROWS)}]", small)
    assert (done.code, done.err) == (0, "")
    return done


def stage(home: Path, ended: Ended, name: str, kind: str) -> Path:
    return home / ".elrea" / kind / ended.summary["stages"][name]["key"]


def loss(model: Any, tokenizer: Any, prompt: str, response: str, end: bool) -> float:
    """Mean NLL of the response, by transformers; the tokenizer's tokens are bytes, which never merge."""
    bos = (
        [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
    )
    first = bos + tokenizer(prompt, add_special_tokens=False)["input_ids"]
    then = tokenizer(f" {response}", add_special_tokens=False)["input_ids"]
    then += [tokenizer.eos_token_id] if end else []
    with torch.no_grad():
        logits = model(torch.tensor([first + then])).logits[0]
    found = logits[len(first) - 1 : -1].log_softmax(-1)
    return -float(found[range(len(then)), then].mean())


def test_a_tag_says_the_cluster_in_training_and_in_scoring(
    home: Path, ended: Ended, small_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    backbone = AutoModelForCausalLM.from_pretrained(small_model).eval()
    clusters = load_file(stage(home, ended, "clusters", "clusters") / "clusters.safetensors")
    assigned, made = clusters["assignment"].tolist(), rows("train", 36)
    assert len(set(assigned)) == 2

    # A fresh adapter changes nothing, so that the first step's loss is the backbone's.
    folder = stage(home, ended, "tagged", "adapter")
    curve = json.loads((folder / "curve.json").read_text())
    plan = Schedule(36, 3, 8, 1.0, 0.0, 0, "tagged")
    chosen = plan.order(1)[0]
    wanted = [
        loss(
            backbone,
            tokenizer,
            f"[{assigned[i]}] {made[i]['instruction']}",
            made[i]["response"],
            True,
        )
        for i in chosen
    ]
    assert curve[0]["loss"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)

    adapted = PeftModel.from_pretrained(backbone, str(folder / "adapter")).eval()
    lines = (home / "out" / "predictions.jsonl").read_text().splitlines()
    nearest = set()
    for line, row in zip(map(json.loads, lines), rows("test", 8), strict=True):
        weights = line["weights"]
        nearest.add(cluster := weights.index(max(weights)))
        prompt = f"[{cluster}] {row['instruction']}"
        expected = loss(adapted, tokenizer, prompt, row["response"], False)
        assert line["strategies"]["tagged"]["loss"] == pytest.approx(expected, abs=1e-4)
    assert len(nearest) == 2, "one tag for all"


def test_texts_are_written_to_prompts_with_a_tag(
    home: Path, ended: Ended, words: list[str], small_model: Path
) -> None:
    """Greedy decoding by transformers, of the adapter that the other run has trained."""
    more = [
        "evaluation.strategies=[base]",
        "evaluation.by=generation",
        "evaluation.max_new_tokens=4",
    ]
    moved = [word for word in words if not word.startswith("hydra.run.dir=")]
    wrote = run(home, *moved, *more, "ensemble=tagged", "hydra.run.dir=texts")
    assert (wrote.code, wrote.err) == (0, "") and "answers-tagged" in wrote.out
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    backbone = AutoModelForCausalLM.from_pretrained(small_model).eval()
    folder = stage(home, ended, "tagged", "adapter") / "adapter"
    adapted: Any = PeftModel.from_pretrained(backbone, str(folder)).eval()
    start = [tokenizer.bos_token_id] * (tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    lines = (home / "texts" / "predictions.jsonl").read_text().splitlines()
    for line, row in zip(map(json.loads, lines), rows("test", 8), strict=True):
        cluster = line["weights"].index(max(line["weights"]))
        text = f"[{cluster}] {row['instruction']}"
        ids = start + tokenizer(text, add_special_tokens=False)["input_ids"]
        made = adapted.generate(
            input_ids=torch.tensor([ids]), max_new_tokens=4, do_sample=False,
            pad_token_id=tokenizer.pad_token_id or 0,
        )  # fmt: skip
        wanted = str(tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)).strip()
        assert line["strategies"]["tagged"]["text"].strip() == wanted


def test_all_train_as_many_steps_as_elrea(home: Path, ended: Ended) -> None:
    """Of 36 examples, 3 epochs in steps of 8; balanced, of as many draws."""
    clusters = load_file(stage(home, ended, "clusters", "clusters") / "clusters.safetensors")
    sizes = Counter(clusters["assignment"].tolist())
    assert len(set(sizes.values())) == 2, "clusters of one size"
    for name, steps in (("tagged", 15), ("projected", 15), ("balanced", 14)):
        folder = stage(home, ended, name, "adapter")
        curve = json.loads((folder / "curve.json").read_text())
        assert len(curve) == steps and curve[-1]["examples"] == 108
        shape = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert shape["r"] == 4, "rank C r"
    passes = {name: row["forward_passes"] for name, row in ended.summary["strategies"].items()}
    assert passes["balanced"] == passes["projected"] == 1
    assert passes["tagged"] == passes["elrea"] - 2  # one pass and the routing, for three and it
    assert passes["elrea_source"] == 3, "no pass for the routing"


def test_sources_are_recognised_by_their_words(home: Path, ended: Ended) -> None:
    router = stage(home, ended, "elrea_source/router", "router")
    assert json.loads((router / "router.json").read_text())["accuracy"] == 1.0
    cosines = load_file(
        stage(home, ended, "elrea_source/routing", "routing") / "cosines.safetensors"
    )
    found = cosines["cosines"]
    torch.testing.assert_close(found.sum(1), torch.ones(8))
    # The larger source, "numbers", is the first cluster.
    assert found.argmax(1).tolist() == [int(row["source"] == "colours") for row in rows("test", 8)]
    stages = ended.summary["stages"]
    assert "elrea_source/features-test" not in stages and "elrea_source/expert-1" in stages


def test_a_text_router_of_the_run_is_exported(
    home: Path, words: list[str], small_model: Path
) -> None:
    more = ["clustering=source", "clustering.min_size=4", "routing=words", "hydra.run.dir=words"]
    drop = [word for word in words if not word.startswith(("clustering.k=", "hydra.run.dir="))]
    done = run(home, *drop, *more, "ensemble=elrea_top1")
    assert (done.code, done.err) == (0, "")
    ensemble = Ensemble.load(
        home / "words" / "ensemble", backbone=str(small_model), device=Device("cpu", threads=1)
    )
    routes = ensemble.route(["paint train 3", "count train 4"])
    assert [route.cosines.index(max(route.cosines)) for route in routes] == [1, 0]
    lines = (home / "words" / "predictions.jsonl").read_text().splitlines()
    assert all(json.loads(line)["w_base"] < 0.5 for line in lines)


@pytest.mark.parametrize("clustering", [None, "source"])
def test_what_tags_and_projections_cannot_do_is_said(
    clustering: str | None, home: Path, words: list[str]
) -> None:
    """Before anything is trained; also where the number of clusters is open until they are made."""
    if clustering:
        words = [word for word in words if not word.startswith("clustering.k=")]
        words.append(f"clustering={clustering}")
    (home / "text.jsonl").write_text(
        "".join(json.dumps({"text": f"Text {i}."}) + "\n" for i in range(20))
    )
    plain = [word for word in words if not word.startswith("data.train=")]
    ended = run(home, *plain, "data.train=text.jsonl", "ensemble=tagged", "hydra.run.dir=no")
    assert "is plain text, which has no instruction to write a tag before" in ended.error
    more = ["trainer=ddp", "trainer.devices=2", "ensemble=projected", "hydra.run.dir=no"]
    ended = run(home, *words, *more)
    assert "projected: clusters' gradients are projected in one process" in ended.error
    assert "train base" not in ended.out
