"""A whole run from an existing rsLoRA: every member keeps its scaling, in the ensemble and for PEFT alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from peft import AutoPeftModelForCausalLM

from elrea.data.examples import Example
from elrea.method.ensemble.ensemble import Ensemble, Route
from elrea.models.device import Device
from elrea.store.files import read_json
from tests.cli.commands import EXAM, QUIET, TINY, run
from tests.pipeline.test_start import made


def test_members_of_an_rslora_are_scored_as_peft_does(small_model: Path, tmp_path: Path) -> None:
    start = made(small_model, tmp_path / "lora", use_rslora=True)
    own = [word for word in TINY if not word.startswith("adapter.r=")]
    words = [*own, *EXAM, QUIET, f"backbone.name={small_model}", f"adapter.start={start}"]
    ended = run(tmp_path, *words, "store=store")
    assert (ended.code, ended.err) == (0, "")
    config: Any = OmegaConf.load(tmp_path / "out" / "config.yaml")
    assert (config.adapter.r, config.adapter.alpha, config.adapter.rslora) == (3, 5.0, True)
    ensemble = Ensemble.load(tmp_path / "out", device=Device("cpu", threads=1))
    question = "Which one? (A) this (B) that Answer:"
    ids = ensemble.prompter.routing(asked(question))[0].prompt
    letter = ensemble.prompter.following(asked(question)[0], " A")
    for member in ensemble.members:
        folder = tmp_path / "out" / "ensemble" / member
        written = read_json(folder / "adapter_config.json")
        assert (written["r"], written["lora_alpha"], written["use_rslora"]) == (3, 5, True)
        weights = {name: float(name == member) for name in ensemble.members}
        ((ours,),) = ensemble.score([question], [["A"]], routes=[Route(weights, [0, 0], 0)])
        alone = AutoPeftModelForCausalLM.from_pretrained(str(folder)).eval()
        with torch.no_grad():
            logits = alone(torch.tensor([[*ids, *letter]])).logits[0].log_softmax(-1)
        places = range(len(ids) - 1, len(ids) + len(letter) - 1)
        theirs = sum(float(logits[at, token]) for at, token in zip(places, letter, strict=True))
        assert ours == pytest.approx(theirs, abs=1e-4), member
    again = run(tmp_path, *words, "store=store")
    assert (again.code, again.err) == (0, ""), "its folder is its own"
    assert "to do" not in again.out, "the finished stages are found"
    said = run(tmp_path, *words, "adapter.r=4", "plan=true").error
    assert said.startswith("adapter.r=4: contradicts adapter.start, which has 3")


def asked(text: str) -> list[Example]:
    return [Example("q", text, "", "")]
