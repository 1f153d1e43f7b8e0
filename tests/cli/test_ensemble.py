"""A run's `ensemble/` in use from Python: what the run itself found, and nothing from a folder that was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elrea
from elrea.backbone.device import Device
from elrea.data.exam import Exam
from elrea.data.examples import Example
from elrea.ensemble.decoding import Decoding
from elrea.ensemble.ensemble import Ensemble
from elrea.errors import BackboneError, ConfigError, DataError, ElreaError, StoreError
from elrea.files import read_json, sha256, write_json
from tests.cli.commands import Ended

CPU = Device("cpu", threads=1)


@pytest.fixture(scope="module")
def folder(whole: Ended) -> Path:
    return whole.folder / "out" / "ensemble"


@pytest.fixture(scope="module")
def ensemble(folder: Path, small_model: Path) -> Ensemble:
    return Ensemble.load(folder, backbone=str(small_model), device=CPU)


@pytest.fixture(scope="module")
def test() -> list[Example]:
    """The run's test questions."""
    corpus = Exam(boards=2, train_per_board=16, dev_per_board=4, test_per_board=6).load()
    return list(corpus.test)


@pytest.fixture(scope="module")
def told(whole: Ended) -> list[dict[str, Any]]:
    lines = (whole.folder / "out" / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_package_names_it() -> None:
    assert elrea.Ensemble is Ensemble


def test_it_says_what_it_is(ensemble: Ensemble, folder: Path) -> None:
    assert repr(ensemble).startswith(f"<Ensemble of 2 experts in {folder}, on ")


def test_routes_are_the_runs(
    ensemble: Ensemble, test: list[Example], told: list[dict[str, Any]]
) -> None:
    routes = ensemble.route(test)
    for route, row in zip(routes, told, strict=True):
        w_base, *experts = route.weights.values()
        assert w_base == pytest.approx(row["w_base"], abs=1e-3)
        assert experts == pytest.approx(row["weights"], abs=1e-3)
        assert route.cosines[route.nearest] == max(route.cosines) == pytest.approx(1 - w_base)
    (alone,) = ensemble.route([test[0].instruction])  # a text is an instruction
    assert alone.weights == pytest.approx(routes[0].weights, abs=1e-5)
    assert ensemble.route([]) == []


@pytest.mark.parametrize("top_k", [None, 1])
def test_scores_are_the_runs(
    top_k: int | None,
    folder: Path,
    small_model: Path,
    test: list[Example],
    told: list[dict[str, Any]],
) -> None:
    found = Ensemble.load(folder, backbone=str(small_model), top_k=top_k, device=CPU)
    name = "elrea_top1" if top_k else "elrea"
    scores = found.score(test, [example.choices for example in test])
    for example, row, sums in zip(test, told, scores, strict=True):
        outcome = row["strategies"][name]
        assert example.choices[sums.index(max(sums))] == outcome["choice"]
        per_token = -sums[example.answer or 0] / len(" A")  # of a byte each
        assert per_token == pytest.approx(outcome["loss"], abs=2e-3)


def test_answers_do_not_depend_on_what_is_asked_beside(ensemble: Ensemble) -> None:
    prompts = ["Say one.", "What comes after Tuesday, if anything at all?", "Hi"]
    decoding = Decoding(max_new_tokens=6)
    together = ensemble.generate(prompts, decoding)
    assert together == [ensemble.generate([prompt], decoding)[0] for prompt in prompts]
    routes = ensemble.route(prompts)
    assert ensemble.generate(prompts, decoding, routes=routes) == together
    ended = ensemble.generate(prompts, Decoding(max_new_tokens=6, stop=[together[0][2:4]]))
    assert ended[0] == together[0][: together[0].index(together[0][2:4])]


def test_prompts_that_cannot_be_answered(ensemble: Ensemble) -> None:
    with pytest.raises(DataError, match=r"^prompt 2 is empty$"):
        ensemble.route(["a", "  "])
    with pytest.raises(ConfigError, match=r"^prompt 1 is not UTF-8 text$"):
        ensemble.route(["\ud800"])
    with pytest.raises(DataError, match=r"^prompt 1: longer than the 400 tokens that fit"):
        ensemble.generate(["word " * 100])
    with pytest.raises(DataError, match=r"^prompt 1: it has no choices"):
        ensemble.score(["a"], [[]])
    with pytest.raises(DataError, match=r"^1 prompts with choices for 2"):
        ensemble.score(["a"], [["b"], ["c"]])


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    facts = read_json(path)
    how(facts)
    write_json(path, facts)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def outside(copy: Path, facts: dict[str, Any]) -> None:
    secret = copy.parent / "secret"
    secret.write_text("x")
    facts["files"]["../secret"] = sha256(secret)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda c: flip(c / "expert-1" / "adapter_model.safetensors"), "expert-1/adapter_model.saf"),
        (lambda c: (c / "base" / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda c: (c / "extra.bin").write_text("x"), "extra.bin does not belong to the ensemble"),
        (lambda c: (c / "ensemble.json").unlink(), "no ensemble.json there; give the folder ense"),
        (lambda c: (c / "ensemble.json").write_text("{"), "ensemble.json"),
        (lambda c: (c / "ensemble.json").write_text("[]"), "not as this version writes it"),
        (lambda c: change(c / "ensemble.json", lambda f: f.update(format=2)), "format 2 is not 1"),
        (lambda c: change(c / "ensemble.json", lambda f: outside(c, f)), "leads out of the folder"),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["router"].update({"class": "os.system"})),
            "names 'os.system', which is no part of an ensemble",
        ),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["features"].update(form="bfgs")),
            "form is 'adam' or 'sgd'",
        ),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["backbone"].update(fingerprint="0")),
            "is not the backbone that the adapters were trained on",
        ),
    ],
)  # fmt: skip
def test_folders_that_were_changed(
    harm: Callable[[Path], object], said: str, folder: Path, small_model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    harm(copy)
    with pytest.raises(ElreaError) as caught:
        Ensemble.load(copy, backbone=str(small_model), device=CPU)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_backbone_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="the ensemble's backbone 'small' is needed"):
        Ensemble.load(folder, backbone=str(tmp_path / "none"), device=CPU)
    with pytest.raises(StoreError, match=r"no ensemble\.json there"):
        Ensemble.load(tmp_path, device=CPU)
