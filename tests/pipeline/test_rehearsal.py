"""Two rows go through everything before any long stage; what cannot is one line, and nothing else changes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from elrea.errors import BackboneError
from elrea.pipeline import rehearsal
from elrea.pipeline.graph import Builder
from elrea.pipeline.rehearsal import RESULT, rehearse, two_rows
from elrea.pipeline.run import Pipeline
from elrea.store.files import read_json
from elrea.store.stage import Store
from tests.cli.test_keys import experiment
from tests.models.architectures import built
from tests.models.builders import examples
from tests.small_models import byte_tokenizer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each rehearsal that is not remembered."""
    made: list[str] = []
    plain = rehearsal._make

    def make(*args: Any) -> None:
        made.append("")
        plain(*args)

    monkeypatch.setattr(rehearsal, "_make", make)
    return made


def test_it_leaves_weights_and_random_states_as_they_were(
    small_model: Path, tmp_path: Path
) -> None:
    (context,) = Builder(experiment(small_model)).contexts
    model = context.backbone.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = random_states()
    rehearse([context], Store(tmp_path))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert random_states() == states
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    assert not any(m._forward_hooks for m in model.modules())


def random_states() -> list[bytes]:
    """Of torch, Python and numpy."""
    return [
        pickle.dumps(state)
        for state in (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state())
    ]


def test_it_changes_no_result_and_no_key(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves, keys = [], []
    for name in ("with", "without"):
        pipeline = Pipeline(experiment(small_model), Store(tmp_path / name))
        if name == "without":
            monkeypatch.setattr(rehearsal, "rehearse", lambda *_: None)
        pipeline.run("features-train")
        stages = pipeline.graph.stages
        curves.append(read_json(stages["base"].folder / "curve.json"))
        curves[-1].append((stages["features-train"].folder / "features.safetensors").read_bytes())
        keys.append(pipeline.graph.keys)
    assert curves[0] == curves[1] and len(curves[0]) > 4
    assert keys[0] == keys[1] and "rehearsal" not in keys[0]


def test_it_is_remembered_by_backbone_adapter_and_features(
    small_model: Path, tmp_path: Path, calls: list[str]
) -> None:
    def go(*words: str, until: str = "base") -> int:
        Pipeline(experiment(small_model, *words), Store(tmp_path)).run(until)
        return len(calls)

    assert go() == 1
    assert go(until="features-train") == 1
    assert go("training.learning_rate=0.01", "seed=5", "clustering.k=3") == 1
    assert go("adapter.targets=[q_proj]") == 2
    assert go("features.projection.d=8", until="features-train") == 3
    assert go("features.batch_size=3", "training.learning_rate=0.02") == 3
    (folder, *others) = (tmp_path / "rehearsal").glob("*")
    assert len(others) == 2
    assert {path.name for path in folder.iterdir()} == {RESULT, "manifest.json"}


def test_a_plan_does_not_rehearse(small_model: Path, tmp_path: Path, calls: list[str]) -> None:
    Pipeline(experiment(small_model), Store(tmp_path)).check(None)
    assert not calls and not list(tmp_path.iterdir())


def test_what_is_adapted_is_logged(
    small_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # once made, once remembered
        caplog.clear()
        with caplog.at_level("INFO"):
            rehearse(Builder(experiment(small_model)).contexts, Store(tmp_path))
        (line,) = [r.message for r in caplog.records if r.name == "elrea.pipeline.rehearsal"]
        assert line.startswith("adapted: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj")


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("opt", []),
        ("qwen2_moe", ["not adapted: down_proj, gate_up_proj (weights of routed experts)"]),
        ("gemma3_vision", ["not adapted: vision_tower (text does not pass through it)"]),
        (
            "jamba",
            [
                "not adapted: down_proj, gate_up_proj (weights of routed experts)",
                "without effect: dt_proj (no gradient in the rehearsal)",
            ],
        ),
    ],
)  # fmt: skip
def test_odd_architectures_go_through(name: str, left_out: list[str], tmp_path: Path) -> None:
    words = (f"backbone.name={saved(name, tmp_path)}",)
    pipeline = Pipeline(experiment(tmp_path / "m", *words), Store(tmp_path / "store"))
    pipeline.run("features-train")
    (path,) = (tmp_path / "store" / "rehearsal").glob(f"*/{RESULT}")
    assert [line for line in read_json(path)["left_out"] if "router" not in line] == left_out


def saved(name: str, folder: Path) -> Path:
    """The model with as many tokens as the byte-level tokenizer has, in a folder."""
    tokenizer, model = byte_tokenizer(), built(name)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder / "m")
    tokenizer.save_pretrained(folder / "m")
    return folder / "m"


Forward = Callable[[LlamaMLP, Tensor], Tensor]
plain = LlamaMLP.forward


def time_first(mlp: LlamaMLP, x: Tensor) -> Tensor:
    """The layers get [t, b, d]: exact for gradients, example by example, and mixed up for members in one pass."""
    return plain(mlp, x.transpose(0, 1)).transpose(0, 1)


def flat_time_first(mlp: LlamaMLP, x: Tensor) -> Tensor:
    """The layers get [t·b, d], which looks like [b·t, d]."""
    b, t, d = x.shape
    return plain(mlp, x.transpose(0, 1).reshape(t * b, d)).view(t, b, d).transpose(0, 1)


def fails_in_training(mlp: LlamaMLP, x: Tensor) -> Tensor:
    """As a model whose code for training needs what text does not have."""
    if mlp.training:
        raise KeyError("pixel_values")
    return plain(mlp, x)


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (time_first, "the scores of two members in one pass: they are not those of one member at a time"),
        (flat_time_first, "_proj.lora_B.weight in a batch are not those of one row alone"),
        (fails_in_training, "one training step: KeyError: 'pixel_values'"),
    ],
)  # fmt: skip
def test_what_cannot_go_through_is_one_line_before_the_base_adapter(
    forward: Forward, said: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaMLP, "forward", forward)
    with pytest.raises(BackboneError) as caught:
        Pipeline(experiment(small_model), Store(tmp_path)).run()
    line = str(caught.value)
    assert said in line and "\n" not in line
    assert line.startswith(
        "LlamaForCausalLM (model_type llama): the rehearsal on two rows failed at "
    )
    assert line.endswith("say adapter.targets=[k_proj,o_proj,q_proj,v_proj]")
    assert not list(tmp_path.glob("base/*")) and not list(tmp_path.glob(f"*/*/{RESULT}"))
    if forward is not fails_in_training:  # what the line says helps
        attention = experiment(small_model, line.rpartition("say ")[2])
        Pipeline(attention, Store(tmp_path)).run("base")


def test_a_backbone_that_cannot_write_is_refused_where_texts_are_written(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Any, input_ids: Any, attention_mask: Any = None, **_: Any) -> None:
        raise KeyError("past_key_values")

    monkeypatch.setattr(LlamaForCausalLM, "prepare_inputs_for_generation", refuse)
    words = ("evaluation.by=generation", "evaluation.max_new_tokens=2")
    with pytest.raises(BackboneError, match="failed at a text of two members: KeyError: 'past_key"):
        rehearse(Builder(experiment(small_model, *words)).contexts, Store(tmp_path))
    rehearse(Builder(experiment(small_model)).contexts, Store(tmp_path))
    monkeypatch.undo()
    rehearse(Builder(experiment(small_model, *words)).contexts, Store(tmp_path))
    assert len(list(tmp_path.glob(f"rehearsal/*/{RESULT}"))) == 2


def test_the_rows_are_short_and_of_two_lengths() -> None:
    chosen = two_rows(examples(40))
    lengths = sorted({e.length for e in examples(40)})
    assert [e.length for e in chosen] == lengths[:2]
    assert len(two_rows(examples(1))) == 1
    same = [e for e in examples(40) if e.length == lengths[0]]
    assert len({e.id for e in two_rows(same)}) == min(2, len(same))
