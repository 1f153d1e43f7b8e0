"""`make gpu`: its parts in small on the CPU, and what happens when one fails, hangs, or is called again."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from elrea.method.ensemble.joint import JointModel
from experiments.gpu import __main__ as script
from experiments.gpu import checks, decode, features, memory, study, toy
from experiments.gpu.needs import modules
from experiments.gpu.parts import PARTS, Part, run, supervise
from experiments.gpu.record import DONE, FAILED, SKIPPED, UNFINISHED, Record, Skip
from experiments.gpu.setting import Setting, random_prompts
from experiments.gpu.table import lines

PART = Part("made_up", "a made-up part", 0.5)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(small=True, into=tmp_path)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def ended(record: Record) -> tuple[str, str]:
    return record.content["status"], record.content["note"]


def test_figures_are_kept_between_calls(tmp_path: Path) -> None:
    calls = itertools.count(1)
    found = []
    for about in ({"batch": 4}, {"batch": 4}, {"batch": 8}):
        record = Record(tmp_path / "part.json", about)
        found.append(record.figure("speed", lambda: next(calls)))
    assert found == [1, 1, 2]
    at = record.content["at"]["speed"]
    assert at["device"] == "cpu" and at["versions"]["torch"] and at["versions"]["peft"]


def test_a_part_that_fails_says_so_in_a_line(setting: Setting) -> None:
    code = "import sys; print('progress'); sys.exit('no such kernel')"
    status, note = ended(supervise(PART, setting, python(code), 60))
    assert status == FAILED and note == "its process ended with code 1: no such kernel"


def test_a_part_that_hangs_is_ended_with_its_children(setting: Setting, tmp_path: Path) -> None:
    late = tmp_path / "late"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(late)!r}).touch()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    status, note = ended(supervise(PART, setting, python(code), 1))
    assert status == FAILED and "cut off after 1 s" in note and time.monotonic() - start < 3
    status, _ = ended(supervise(Part("study", "", 1.0, open_ended=True), setting, python(code), 1))
    assert status == UNFINISHED
    time.sleep(3)
    assert not late.exists()


@pytest.mark.parametrize("status", [DONE, FAILED])
def test_a_parts_own_verdict_stays_if_its_process_ends_late(setting: Setting, status: str) -> None:
    path, about = str(setting.into / "made_up.json"), setting.about
    code = (
        "import pathlib, time; from experiments.gpu.record import Record; "
        f"Record(pathlib.Path({path!r}), {about!r}).end({status!r}, 'its own', 7.0); time.sleep(60)"
    )
    record = supervise(PART, setting, python(code), 5)
    assert ended(record) == (status, "its own") and record.content["seconds"] == 7


def test_a_command_that_fails_is_named_by_its_own_error(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """As the toy's run does, in the part's output; errors of earlier calls are in the same file."""
    log = setting.into / "toy.txt"
    log.write_text("error: of an earlier call\n")
    for code, note in (
        (
            "print('error: no room; lower it'); print('bye'); raise SystemExit(1)",
            "no room; lower it",
        ),
        ("raise SystemExit(3)", "CalledProcessError: "),
    ):

        def fails(_setting: Setting, _record: Record, code: str = code) -> None:
            with log.open("a") as file:
                subprocess.run(python(code), check=True, stdout=file)

        monkeypatch.setattr(toy, "measure", fails)
        with pytest.raises(SystemExit):
            run(next(part for part in PARTS if part.name == "toy"), setting)
        status, said = ended(Record(setting.into / "toy.json", setting.about))
        assert status == FAILED and said.startswith(note)


@pytest.mark.parametrize("name", ["omegaconf", "elrea.gone"])
def test_a_part_that_needs_a_missing_package_is_skipped(
    name: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_setting: Setting, _record: Record) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(decode, "measure", fails)
    part = next(part for part in PARTS if part.name == "decode")
    if name == "omegaconf":
        run(part, setting)
    else:
        with pytest.raises(SystemExit):
            run(part, setting)
    wanted = (SKIPPED, "needs the package omegaconf")
    assert (ended(Record(setting.into / "decode.json", setting.about)) == wanted) == (
        name == "omegaconf"
    )


def test_the_packages_of_a_run_are_pyprojects() -> None:
    """All modules that a whole run imports from outside are among them, or come with them."""
    assert {"omegaconf", "pydantic", "hydra", "faiss", "sklearn", "wandb"} <= set(modules())
    assert all(find_spec(name) for name in modules()) and toy.NEEDS == study.NEEDS == modules()


def test_each_test_file_has_a_figure_and_a_failure_its_output(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name, body in (("good", "assert True"), ("bad", "assert 1 == 2, 'a kernel is wrong'")):
        text = f"import pytest\n@pytest.mark.gpu\ndef test_{name}():\n    {body}\n"
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    monkeypatch.setattr(checks, "TESTS", tmp_path)
    record = Record(tmp_path / "checks.json", setting.about)
    with pytest.raises(AssertionError, match="test_bad failed, of 1"):
        checks.measure(setting, record)
    assert record.figures == {"test_good.py": {"passed": 1, "skipped": 0, "failed": []}}
    assert "a kernel is wrong" in capsys.readouterr().out


def test_a_finished_part_is_not_run_again(setting: Setting) -> None:
    record = Record(setting.into / "made_up.json", setting.about)
    record.figure("speed", lambda: 3)
    record.end(DONE)
    found = supervise(PART, setting, python("raise SystemExit('run again')"), 60)
    assert ended(found) == (DONE, "") and found.figures == {"speed": 3}


def test_an_exception_is_in_the_file(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_setting: Setting, record: Record) -> None:
        record.figure("before", lambda: 1)
        raise RuntimeError("CUDA error: out of memory\nmore")

    monkeypatch.setattr(decode, "measure", fails)
    with pytest.raises(SystemExit):
        run(next(part for part in PARTS if part.name == "decode"), setting)
    record = Record(setting.into / "decode.json", setting.about)
    assert ended(record) == (FAILED, "RuntimeError: CUDA error: out of memory")
    assert record.figures == {"before": 1}
    monkeypatch.setattr(decode, "NEEDS", ("no_such_package",), raising=False)
    run(next(part for part in PARTS if part.name == "decode"), setting)
    assert ended(Record(record.path, setting.about)) == (
        SKIPPED,
        "needs the package no_such_package",
    )


@pytest.mark.parametrize("failing", [[], ["memory"]])
def test_one_failure_stops_no_other_part(
    failing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen: list[tuple[str, float]] = []

    def supervised(part: Part, setting: Setting, command: Sequence[str], limit: float) -> Record:
        seen.append((part.name, limit))
        assert command[-4:-1] == ["--part", part.name, "--seconds"] and setting.small
        record = Record(setting.into / f"{part.name}.json", setting.about)
        record.end(*((FAILED, "KeyError: x") if part.name in failing else (DONE, "")))
        return record

    monkeypatch.setattr(script, "supervise", supervised)
    assert script.main(["--into", str(tmp_path), "--minutes", "2"]) == bool(failing)
    assert [name for name, _ in seen] == [part.name for part in PARTS]
    assert all(20 <= limit <= 120 for _, limit in seen)
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("torch finds no GPU here: everything runs in small")
    assert err.splitlines() == [
        f"error: {name}: KeyError: x; see {tmp_path}/small/{name}.txt" for name in failing
    ]


def test_joint_decoding_in_small(setting: Setting) -> None:
    record = Record(setting.into / "decode.json", setting.about)
    decode.measure(setting, record)
    assert record.figures["float32"]["equal_texts"] == 1
    assert any("times_as_fast" in line for line in lines([(PART, record)]))


def test_random_weights_write_texts_that_show_a_wrong_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference with the positions of new tokens one too high writes other texts."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    prompts, weights = random_prompts(1000, 4, 32), torch.ones(4, 1)
    singles = [JointModel(model, [None])]
    plain = decode.one_by_one(singles, prompts, weights, 16)
    assert min(len(set(text)) for text in plain) < decode.VARIED * 16, "the head repeats a token"
    decode.strengthen(model)
    texts = decode.one_by_one(singles, prompts, weights, 16)
    assert min(len(set(text)) for text in texts) >= decode.VARIED * 16
    right = LlamaRotaryEmbedding.forward

    def wrong(self: Any, x: Any, position_ids: Any) -> Any:
        return right(self, x, position_ids + (position_ids.shape[1] == 1))

    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", wrong)
    others = decode.one_by_one(singles, prompts, weights, 16)
    assert sum(a == b for a, b in zip(texts, others, strict=True)) < decode.ALIKE * 4


def test_texts_of_one_token_are_a_failure(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "VARIED", 1.01)
    with pytest.raises(AssertionError, match="different tokens, too few to show a difference"):
        decode.measure(setting, Record(setting.into / "decode.json", setting.about))


def test_joint_decoding_that_differs_is_a_failure(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        decode, "one_by_one", lambda _s, prompts, _w, new: [(0,) * new for _ in prompts]
    )
    with pytest.raises(AssertionError, match=r"only 0[.]0% of the texts are equal"):
        decode.measure(setting, Record(setting.into / "decode.json", setting.about))


def test_features_in_small(setting: Setting) -> None:
    record = Record(setting.into / "features.json", setting.about)
    features.measure(setting, record)
    same, half = (record.figures[f"{name} against float32"] for name in ("float32", "bfloat16"))
    assert same["cosine_least"] == pytest.approx(1, abs=1e-5) and same["nmi"] == 1
    assert 0.8 < half["cosine_mean"] < 0.99999


def test_memory_in_small(setting: Setting) -> None:
    """Nothing is measured on a CPU, but all of it runs, and the forecasts are there."""
    record = Record(setting.into / "memory.json", setting.about)
    memory.measure(setting, record)
    assert all(figure["peak_bytes"] is None for figure in record.figures.values())
    assert record.figures["training"]["forecast_bytes"] > 1e6
    assert record.figures["scoring"]["forecast_bytes"] is None


def test_the_toy_is_beside_the_paper(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.benchmarks import paper_toy

    def table(shape: str, sizes: tuple[int, int], work: Path) -> dict[str, Any]:
        return {"shape": shape, "examples": sizes, "figures": {"base_tuning": 2.0}}

    monkeypatch.setattr(paper_toy, "table", table)
    record = Record(setting.into / "toy.json", setting.about)
    toy.measure(setting, record)
    shown = [line.split() for line in lines([(PART, record)])]
    assert ["base_tuning", "2", "paper", "246"] in shown and [
        "inference",
        "-",
        "paper",
        "262",
    ] in shown


def test_the_study_computes_on_the_gpu(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(Skip, match="in small it is not run"):
        study.measure(setting, Record(tmp_path / "study.json", {}))
    command = study.on_gpu(tmp_path / "model", tmp_path / "work").command("base", 10, ["base"])
    assert "trainer.accelerator=gpu" in command and "backbone.dtype=float32" in command
    assert not {"trainer.accelerator=cpu", "backbone.dtype=mixed"} & set(command)
