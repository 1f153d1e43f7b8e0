"""Training examples without a feature are in no cluster (-1): what is trained by the clusters leaves them out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from elrea.data.examples import Example
from elrea.data.prompts import Encoded
from elrea.method.clustering.assignment import CLUSTERS
from elrea.method.ensemble.strategy import AdapterSpec, ByCluster
from elrea.models.adapter_shape import Lora
from elrea.models.training.settings import Recipe, Training
from elrea.pipeline.steps import adapters
from elrea.pipeline.steps.adapters import Adapter, examples_of
from elrea.pipeline.steps.router import LearnedRouterStep

ASSIGNED = [0, -1, 1, 0, 0, -1, 0]
EXAMPLES = [Example(f"e{i}", f"question {i}", "answer", "s") for i in range(len(ASSIGNED))]
ENCODED = [Encoded(e.id, (1, 2), (3,)) for e in EXAMPLES]


@pytest.fixture
def upstream(tmp_path: Path) -> Any:
    tensors = {"assignment": torch.tensor(ASSIGNED), "centroids": torch.eye(2)}
    save_file(tensors, tmp_path / CLUSTERS)
    return {"clusters": SimpleNamespace(folder=tmp_path), "base": SimpleNamespace(folder=tmp_path)}


@pytest.fixture
def context() -> Any:
    @contextmanager
    def peft(_lora: Lora) -> Iterator[None]:
        yield None

    def encode(examples: list[Example]) -> tuple[list[Encoded], list[str]]:
        return [Encoded(e.id, tuple(e.instruction.encode()), (3,)) for e in examples], []

    return SimpleNamespace(
        encoded_train=(ENCODED, []), kept=lambda _split: EXAMPLES, peft=peft, progress=None,
        prompter=SimpleNamespace(train=encode, routing=lambda examples: encode(examples)[0]),
        experiment=SimpleNamespace(
            seed=0, lora=Lora(), corpus=SimpleNamespace(dev=()), training=Training(),
            device=SimpleNamespace(together=1, lightning=dict),
        ),
        backbone=SimpleNamespace(pad_id=0, name=""), task=lambda *_: nullcontext(),
    )  # fmt: skip


def spec(by: ByCluster) -> AdapterSpec:
    made = AdapterSpec(Lora(), 2, 1e-3, "all", from_base=False, by_cluster=by)
    return replace(made, tag="[{}] ") if by == "tag" else made


def test_they_get_no_tag(context: Any, upstream: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = examples_of(spec("tag"), context, upstream)
    texts = [bytes(e.prompt).decode() for e in found]
    assert texts == [f"[{c}] question {i}" for i, c in enumerate(ASSIGNED) if c >= 0]
    assert caplog.messages == ["2 training examples have no feature and so no cluster: left out"]


def test_they_are_no_cluster_of_their_own_that_is_drawn_as_often(
    context: Any, upstream: Any
) -> None:
    """Ten draws: five of the four examples of cluster 0, and five of the one of cluster 1."""
    drawn = [e.id for e in examples_of(spec("balance"), context, upstream)]
    assert len(drawn) == 10 and drawn.count("e2") == 5
    assert {"e0", "e2", "e3", "e4", "e6"} == set(drawn)


def test_no_gradient_of_theirs_is_projected(
    context: Any, upstream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, Any] = {}

    def train(_model: None, encoded: list[Encoded], _recipe: Recipe, **given: Any) -> None:
        got.update(given, ids=[e.id for e in encoded])

    monkeypatch.setattr(adapters, "train_adapter", train)
    Adapter("projected", (), spec("project")).make(context, upstream, tmp_path)
    assert got["ids"] == ["e0", "e2", "e3", "e4", "e6"] and got["clusters"] == [0, 1, 0, 0, 0]


def test_a_text_router_does_not_learn_from_them(
    context: Any, upstream: Any, tmp_path: Path
) -> None:
    got: list[Any] = []

    def train(_f: Path, _m: None, _a: Path, labelled: Any, _dev: None, **_: Any) -> None:
        got.extend(labelled)

    router: Any = SimpleNamespace(learns="clusters", train=train)
    LearnedRouterStep("router", (), router).make(context, upstream, tmp_path)
    assert [prompt.id for prompt in got[0]] == ["e0", "e2", "e3", "e4", "e6"]
    assert got[1].argmax(1).tolist() == [0, 1, 0, 0, 0]
