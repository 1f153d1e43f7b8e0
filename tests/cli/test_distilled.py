"""A run with `routing=distilled`, and its ensemble in use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from elrea.backbone.device import Device
from elrea.data.exam import Exam
from elrea.ensemble import ensemble as room
from elrea.ensemble.ensemble import Ensemble
from tests.cli.commands import EXAM, QUIET, run


def test_no_gradient_of_a_test_prompt_is_taken(
    tiny: list[str], tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny, *EXAM, QUIET, "evaluation.strategies=[elrea_one,elrea]", "routing=distilled"]
    ended = run(tmp_path, *words, "routing.compare=false")
    assert (ended.code, ended.err) == (0, "")
    summary = ended.summary
    assert {"router", "routing"} < summary["stages"].keys()
    assert "features-test" not in summary["stages"]
    passes = {name: row["forward_passes"] for name, row in summary["strategies"].items()}
    assert passes == {"base": 1, "elrea_one": 2, "elrea": 4}
    assert summary["routing"]["distilled"].keys() == {"epoch", "explained", "dev", "held_out"}

    folder = tmp_path / "out" / "ensemble"
    assert not list((folder / "routing").glob("epoch_*"))
    found = Ensemble.load(folder, backbone=str(small_model), device=Device("cpu", threads=1))

    def never(*_given: object, **_named: object) -> None:
        raise AssertionError("a gradient was asked for")

    monkeypatch.setattr(room, "extract", never)
    monkeypatch.setattr(torch.Tensor, "backward", never)
    monkeypatch.setattr(torch.autograd, "grad", never)
    corpus = Exam(boards=2, train_per_board=16, dev_per_board=4, test_per_board=6).load()
    told = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    for route, line in zip(found.route(corpus.test), told, strict=True):
        weights = list(route.weights.values())
        assert weights == pytest.approx([line["w_base"], *line["weights"]], abs=2e-5)
    assert len(found.score([corpus.test[0]], [["A", "B"]])[0]) == 2

    compared = run(tmp_path, *words)
    assert {"features-test", "router"} < compared.summary["stages"].keys()
    assert compared.summary["strategies"] == summary["strategies"]
    assert 0 <= compared.summary["routing"]["distilled"]["top1"] <= 1
    assert "Distilled router against 12 test prompts' gradients" in compared.out
