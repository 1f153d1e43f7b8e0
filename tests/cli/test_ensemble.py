"""A run's `ensemble/` in use from Python: what the run itself found, and nothing from a folder that was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import elrea
from elrea.data.exam.exam import Exam
from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.errors import BackboneError, ConfigError, DataError, ElreaError, StoreError
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from elrea.store.files import read_json, sha256, with_checksum, write_json
from tests.cli.commands import Ended
from tests.data.test_expressible import letters

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
    with pytest.raises(ConfigError, match=r"^prompts must be a list"):
        ensemble.route("hi")
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


def test_choices_that_are_the_same_tokens_are_refused(
    ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any is scored, in score and in what predict checks first."""
    monkeypatch.setattr(ensemble, "prompter", Prompter(letters(True, lower=True), 100))
    said = r"^prompt 1: the choices 'US' and 'us' become the same tokens; word them otherwise"
    with pytest.raises(DataError, match=said):
        ensemble.score(["is it a"], [["US", "us"]])
    asked = Example("prompt 1", "is it a", "us", "", choices=("US", "us"))
    with pytest.raises(DataError, match=said):
        ensemble.check([asked], Decoding())


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """A change that knows of the file's own checksum."""
    facts = read_json(path)
    how(facts)
    write_json(path, with_checksum(facts) if "own_sha256" in facts else facts)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def outside(copy: Path, facts: dict[str, Any]) -> None:
    secret = copy.parent / "secret"
    secret.write_text("x")
    facts["files"]["../secret"] = sha256(secret)


def sealed(copy: Path, name: str, harm: Callable[[Path], object]) -> None:
    """A change that knows of the checksums."""
    harm(copy / name)
    change(copy / "ensemble.json", lambda f: f["files"].update({name: sha256(copy / name)}))


def tensors(how: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        found = load_file(path)
        how(found)
        save_file(found, path)

    return harm


def each(how: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return tensors(lambda found: found.update({n: how(t).contiguous() for n, t in found.items()}))


EXPERT, SHAPE = "expert-1/adapter_model.safetensors", "expert-1/adapter_config.json"
CENTROIDS = "routing/centroids.safetensors"
LORA = "elrea.models.adapter_shape.Lora"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda c: sealed(c, EXPERT, each(lambda t: t * torch.nan)), "numbers that are not finite"),
        (lambda c: sealed(c, EXPERT, each(lambda t: t.int())), "torch.int32"),
        (lambda c: sealed(c, EXPERT, each(lambda t: t[:, :1])), "expert-1 is not a readable LoRA"),
        (lambda c: sealed(c, EXPERT, tensors(lambda f: f.pop(min(f)))), "not one of a pair"),
        (lambda c: sealed(c, EXPERT, tensors(lambda f: f.update({
            n: t[:, :3].contiguous() for n, t in f.items() if "lora_A" in n}))), "layer 'base_mod"),
        *(
            (lambda c, k=k, v=v: sealed(c, SHAPE, lambda p: change(p, lambda f: f.update({k: v}))), said)
            for k, v, said in (
                ("use_dora", True, "use_dora"), ("bias", "all", "bias"), ("peft_type", "X", "peft_type"),
                ("r", "x", "r is 'x'"), ("r", 10**9, "r is 1000000000"), ("r", None, "r is None"),
                ("lora_alpha", "x", "lora_alpha is 'x'"), ("target_modules", 5, "target_modules"),
                ("rank_pattern", {"x": 3}, "rank_pattern"),
            )
        ),
        (lambda c: sealed(c, SHAPE, lambda p: p.write_text("[" * 100_000)), "nested too deeply"),
        (lambda c: sealed(c, CENTROIDS, each(lambda t: t * torch.nan)), "not finite"),
        (lambda c: sealed(c, CENTROIDS, each(lambda t: t.half())), "centroids are torch.float16"),
        (lambda c: sealed(c, CENTROIDS, each(lambda t: t[0, 0])), "centroids are"),
        *(
            (lambda c, n=n: change(c / "ensemble.json", lambda f: f.update(epochs=n)), "epochs is")
            for n in (0, -3, 1, 1.9, True, 10**5)
        ),
        (lambda c: (c / "ensemble.json").write_text('{"format": 1e999}'), "not a finite number"),
        *(
            (lambda c, k=k, v=v: change(c / "ensemble.json", lambda f: f["prompts"].update({k: v})), said)
            for k, v, said in (
                ("add_bos", "yes", "prompts is"), ("thoughts", 1, "prompts is"), ("template_date", "now", "be a date"),
                ("chat_template_kwargs", "{}", "prompts is"), ("words_alone", None, "prompts is"),
            )
        ),
        (lambda c: change(c / "ensemble.json", lambda f: f.update(prompts=3)), "prompts is 3"),
        (lambda c: change(c / "ensemble.json", lambda f: f.update(members="abc")), "members are"),
        (lambda c: change(c / "ensemble.json", lambda f: f.update(members=["x", "y", "z"])), "membe"),
        (lambda c: change(c / "ensemble.json", lambda f: f.update(router=f["features"])), "not a subclass of Router"),
        (lambda c: change(c / "ensemble.json", lambda f: f.update(features=f["router"])), "not a subclass of Features"),
        (lambda c: flip(c / "expert-1" / "adapter_model.safetensors"), "expert-1/adapter_model.saf"),
        (lambda c: (c / "base" / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda c: (c / "extra.bin").write_text("x"), "extra.bin does not belong to the ensemble"),
        (lambda c: (c / "ensemble.json").unlink(), "no ensemble.json there; give the folder of a fin"),
        (
            lambda c: (c / "ensemble.json").rename(c / "sweep.json"),
            "the folder of a sweep; give one of its jobs, as ",
        ),
        (lambda c: (c / "ensemble.json").write_text("{"), "ensemble.json"),
        (lambda c: (c / "ensemble.json").write_text("[]"), "ensemble.json: not "),
        (lambda c: change(c / "ensemble.json", lambda f: f.update(format=2)), "format 2 is not 1"),
        (lambda c: change(c / "ensemble.json", lambda f: outside(c, f)), "is outside the folder"),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["router"].update({"class": "os.system"})),
            "router.class: 'os.system' is not a subclass of Router",
        ),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["router"].update({"class": ["x"]})),
            "router.class: ['x'] is not a subclass of Router",
        ),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["router"].update(_target_=LORA)),
            "router._target_: may not name a class",
        ),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["features"].update(layers=[{"_target_": LORA}])),
            "features.layers: may not name a class",
        ),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["features"]["projection"].update({"class": "Lora"})),
            "features.projection.class: 'Lora' is not a subclass of Projection",
        ),
        (
            lambda c: change(c / "ensemble.json", lambda f: f["features"].update(projection={"_target_": LORA})),
            "features.projection: not a description of a component",
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


def test_centroids_of_another_size(folder: Path, small_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    sealed(copy, CENTROIDS, each(lambda t: t[:, :5]))
    loaded = Ensemble.load(copy, backbone=str(small_model), device=CPU)
    with pytest.raises(StoreError, match=r"5 dimensions, but this ensemble's features have 16"):
        loaded.route(["a"])


def test_a_backbone_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="the ensemble's backbone 'small' is needed"):
        Ensemble.load(folder, backbone=str(tmp_path / "none"), device=CPU)
    with pytest.raises(StoreError, match=r"no ensemble\.json there"):
        Ensemble.load(tmp_path, device=CPU)
