"""A finished run in lm-eval: accuracy, log-likelihoods and answers are ours; each prompt is routed once."""

from __future__ import annotations

import logging
import runpy
import tomllib
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.commands.exit import one_line_errors
from elrea.data.exam.exam import Exam
from elrea.data.examples import Example
from elrea.errors import ConfigError, DataError
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from tests.cli.commands import ROOT, Ended

pytest.importorskip("lm_eval", reason="lm-eval (the extra `harness`) is not installed")

LETTERS = [" A", " B", " C", " D"]


@dataclass
class Asked:
    """The part of lm-eval's Instance that a model reads."""

    args: tuple[Any, ...]


@pytest.fixture(scope="module")
def lm(whole: Ended) -> Any:
    from elrea.commands.lm_eval_model import ElreaLM

    return ElreaLM(path=str(whole.folder / "out"), device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def ensemble(whole: Ended, small_model: Path) -> Ensemble:
    folder = whole.folder / "out" / "ensemble"
    return Ensemble.load(folder, backbone=str(small_model), device=Device("cpu", threads=1))


@pytest.fixture(scope="module")
def test() -> list[Example]:
    """The run's test questions."""
    corpus = Exam(boards=2, train_per_board=16, dev_per_board=4, test_per_board=6).load()
    return list(corpus.test)


@pytest.mark.parametrize("top_k", [None, 1])
def test_accuracy_and_likelihoods_are_the_runs(
    top_k: int | None,
    whole: Ended,
    ensemble: Ensemble,
    test: list[Example],
    small_model: Path,
    tmp_path: Path,
    monkeypatch,
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.api.registry import get_model
    from lm_eval.tasks import TaskManager

    from elrea.commands.lm_eval_model import ElreaLM

    assert get_model("elrea") is ElreaLM
    run = whole.folder / "out"
    write_task = runpy.run_path(str(ROOT / "experiments" / "harness" / "task.py"))["write_task"]
    assert write_task(run, tmp_path / "task") == len(test) == 12
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    found = simple_evaluate(
        model="elrea",
        model_args={"path": str(run), "top_k": top_k},
        tasks=["elrea_exam"],
        task_manager=TaskManager(include_path=str(tmp_path / "task"), include_defaults=False),
        device="cpu",
        batch_size=5,
        log_samples=True,
        bootstrap_iters=0,
    )
    name = "elrea_top1" if top_k else "elrea"
    wanted = whole.summary["strategies"][name]["accuracy"]
    assert round(found["results"]["elrea_exam"]["acc,none"], 6) == wanted
    alone = ensemble
    if top_k:
        alone = Ensemble.load(
            run / "ensemble",
            backbone=str(small_model),
            top_k=top_k,
            device=Device("cpu", threads=1),
        )
    scores = alone.score(test, [example.choices for example in test])
    samples = sorted(found["samples"]["elrea_exam"], key=lambda sample: sample["doc_id"])
    for example, sums, sample in zip(test, scores, samples, strict=True):
        assert sample["doc"]["prompt"] == example.instruction
        logs = [float(answers[0][0]) for answers in sample["resps"]]
        assert logs == pytest.approx(sums, abs=1e-5)


def test_a_prompt_is_routed_once(lm: Any, test: list[Example], monkeypatch) -> None:
    routed: list[str] = []
    route = lm.ensemble.route

    def spied(prompts: list[str]) -> Any:
        routed.extend(prompts)
        return route(prompts)

    monkeypatch.setattr(lm.ensemble, "route", spied)
    lm._weights.clear()
    prompts = [example.instruction for example in test]
    lm.loglikelihood([Asked((p, letter)) for letter in LETTERS for p in prompts])
    lm.generate_until([Asked((p, {"max_gen_toks": 2})) for p in prompts])
    lm.loglikelihood([Asked((f"{prompts[0]} ", "A"))])  # the space belongs to the answer
    assert routed == prompts


def test_continuations_are_scored_without_changes(lm: Any, ensemble: Ensemble) -> None:
    prompts = [f"Say {number}." for number in range(20)]
    answers = ensemble.generate(prompts, Decoding(max_new_tokens=1))
    # A token of a byte; half a letter could not be asked for as text.
    prompt, written = next(
        pair for pair in zip(prompts, answers, strict=True) if pair[1].isascii() and pair[1]
    )
    asked = [
        (prompt, written),
        (prompt, " this"),
        (f"{prompt} ", "this"),
        (prompt, "this"),
        (prompt, ""),
    ]
    found = lm.loglikelihood([Asked(pair) for pair in asked])
    (wanted,) = ensemble.score([prompt], [["this"]])
    assert [greedy for _, greedy in found] == [True, False, False, False, True]
    assert found[1][0] == found[2][0] == pytest.approx(wanted[0], abs=1e-5)
    assert abs(found[3][0] - wanted[0]) > 0.1  # without the space these are other tokens
    assert found[4][0] == 0


def logs_by_hand(lm: Any, ids: list[int], weights: torch.Tensor) -> torch.Tensor:
    """log P of each token after the first [t - 1], by the weighted sum of the members' logits."""
    places = torch.arange(len(ids) - 1)
    logits = lm.ensemble.joint.logits(torch.tensor([ids]), places)
    mixed = torch.einsum("mtv,m->tv", logits, weights)
    return mixed.log_softmax(-1)[places, torch.tensor(ids[1:])]


def test_a_long_context_is_cut_at_its_beginning(lm: Any, ensemble: Ensemble, caplog) -> None:
    context = "word " * 90 + "end"
    with caplog.at_level(logging.WARNING):
        ((log_p, _),) = lm.loglikelihood([Asked((context, " yes"))])
    assert "1 contexts are too long" in caplog.text
    ids = lm.ensemble.backbone.tokenizer(context + " yes", add_special_tokens=False)["input_ids"]
    weights = torch.tensor(list(ensemble.route([context])[0].weights.values()))
    start = lm.ensemble.backbone.tokenizer.bos_token_id
    logs = logs_by_hand(lm, [start, *ids[-399:]], weights)  # 400 fit
    assert log_p == pytest.approx(float(logs[-4:].sum()), abs=1e-3)
    with pytest.raises(DataError, match="leaves no room for a prompt in the 400 that fit"):
        lm.generate_until([Asked(("Hi", {"max_gen_toks": 400}))])


def test_texts_without_a_prompt(lm: Any) -> None:
    tokenizer = lm.ensemble.backbone.tokenizer
    text = "abc " * 150  # 600 tokens: two windows of 400 at most
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    blank = torch.tensor([1.0, 0.5, 0.5])  # w_base = 1 - 0; two experts alike
    start = tokenizer.bos_token_id
    first = logs_by_hand(lm, [start, *ids[:400]], blank).sum()
    second = logs_by_hand(lm, ids[199:600], blank)[
        -200:
    ].sum()  # 400 tokens go in: the last is not read
    (found,) = lm.loglikelihood_rolling([Asked((text,))])
    assert found == pytest.approx(float(first + second), rel=1e-5)
    ((log_p, _),) = lm.loglikelihood([Asked(("", "abc"))])
    assert log_p == pytest.approx(float(logs_by_hand(lm, [start, *ids[:3]], blank).sum()), abs=1e-4)


def test_answers_are_the_ensembles(lm: Any, ensemble: Ensemble) -> None:
    prompts = ["Say one.", "What comes after Tuesday, if anything at all?", "Hi", "Go", "Stop it"]
    plain = ensemble.generate(prompts, Decoding(max_new_tokens=6))
    stop = plain[0][2:4]
    asked = [Asked((p, {"until": [stop], "max_gen_toks": 6})) for p in prompts]
    asked.insert(2, Asked((prompts[0], {"until": stop, "max_gen_toks": 3, "do_sample": False})))
    found = lm.generate_until(asked)
    short = ensemble.generate([prompts[0]], Decoding(max_new_tokens=3, stop=[stop]))[0]
    assert found.pop(2) == short
    assert found == ensemble.generate(prompts, Decoding(max_new_tokens=6, stop=[stop]))


def test_repeated_draws_differ(lm: Any) -> None:
    asked = [Asked(("Hi", {"do_sample": True, "temperature": 5.0, "max_gen_toks": 12}))] * 9
    found = lm.generate_until(asked)
    assert len(set(found)) > 5
    assert lm.generate_until(asked) == found  # by lm-eval's own seed


def test_an_error_is_one_line(whole: Ended, tmp_path: Path, monkeypatch, capsys) -> None:
    from elrea.commands import harness
    from elrea.commands.lm_eval_model import ElreaLM

    run = str(whole.folder / "out")
    for arguments, line in (
        ({}, "path=... is missing"),
        ({"path": run, "topk": 1}, "model_args: topk: unknown; did you mean top_k"),
        ({"path": run, "top_k": "all"}, "top_k='all'"),
        ({"path": run, "top_k": 0}, "top_k=0: must be at least 1"),
        ({"path": run, "device": "tpu"}, "device=tpu: must be cpu, cuda or mps"),
        ({"path": run, "batch_size": 0}, "batch_size=0: must be a number of 1 or more"),
    ):
        with pytest.raises(ConfigError, match=line):
            ElreaLM(**arguments)
    with pytest.raises(ConfigError, match="--apply_chat_template"):
        ElreaLM(run).apply_chat_template([])
    (tmp_path / "t.yaml").write_text("task: none\n")
    words = [
        "--model",
        "elrea",
        "--model_args",
        f"path={tmp_path}",
        "--tasks",
        str(tmp_path / "t.yaml"),
    ]
    monkeypatch.setattr("sys.argv", ["harness", *words])
    with pytest.raises(SystemExit) as ended, one_line_errors():
        harness.main()
    assert ended.value.code == 1 and "no ensemble.json there" in capsys.readouterr().err


def test_without_a_device_it_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's command says cuda:0 then."""
    from lm_eval.config.evaluate_config import EvaluatorConfig

    from elrea.commands.lm_eval_model import device_of

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    untold = EvaluatorConfig().device
    assert untold == "cuda:0" and device_of(untold).resolve() == device_of(None).resolve() == "cpu"
    with pytest.raises(ConfigError, match="torch finds none here"):
        device_of("cuda").resolve()


GROUP = "lm_eval.models"


@pytest.fixture
def point() -> EntryPoint:
    """What pyproject.toml declares; an installed elrea may be older."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    ((name, value),) = declared[GROUP].items()
    return EntryPoint(name, value, GROUP)


def test_the_entry_point_names_the_registered_class(point: EntryPoint) -> None:
    """lm-eval replaces an entry point by a class that registers itself if the two say the same place."""
    from lm_eval.api.model import LM
    from lm_eval.api.registry import get_model

    found = point.load()
    assert issubclass(found, LM) and get_model(point.name) is found
    assert point.value == f"{found.__module__}:{found.__qualname__}"


def test_lm_evals_own_code_finds_the_entry_point(
    point: EntryPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.api import registry
    from lm_eval.api.model import LM

    if not hasattr(registry, "load_plugins"):
        pytest.skip("this lm-eval, up to 0.4.13, reads no entry points")
    known = registry.Registry("model", base_cls=LM)
    monkeypatch.setattr(registry, "_loaded_plugin_groups", set())  # read once in a process
    monkeypatch.setattr(registry.md, "entry_points", lambda *, group: [point] * (group == GROUP))
    assert registry.load_plugins(GROUP, known) == ["elrea"]
    assert known.get("elrea") is point.load()
