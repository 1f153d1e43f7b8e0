"""Every architecture: gradients against a loop, the saved adapter in plain PEFT, joint scores against one by one."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from elrea.data.prompts import Encoded
from elrea.errors import TrainingError
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import Factors, LayerwiseModel, mixed_outputs
from elrea.method.features.per_example import PerExampleGradients
from elrea.models import lora as lora_files
from elrea.models.adapter_shape import Lora
from elrea.models.layers import EXPERTS, ROUTER, TOWER, layers_of
from elrea.models.training.moments import Moments
from tests.method.features import by_hand
from tests.method.features.test_gradients import batch
from tests.models.architectures import BUILD, built
from tests.models.builders import random_state, train

SHAPE = Lora(r=2, alpha=2.0, dropout=0.0)
ADAPTED = {
    "opt": "fc1 fc2 k_proj out_proj q_proj v_proj",
    "mixtral": "k_proj o_proj q_proj v_proj",
    "qwen2_moe": "down_proj gate_proj k_proj o_proj q_proj shared_expert_gate up_proj v_proj",
    "qwen3_moe": "k_proj o_proj q_proj v_proj",
    "olmoe": "k_proj o_proj q_proj v_proj",
    "deepseek_v3": "kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj",
    "gpt_oss": "k_proj o_proj q_proj v_proj",
    "granitemoe": "k_proj o_proj q_proj v_proj",
    "granitemoeshared": "input_linear k_proj o_proj output_linear q_proj v_proj",
    "llama4_text": "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj",
    "phimoe": "k_proj o_proj q_proj v_proj",
    "jetmoe": "kv_proj",
    "dbrx": "Wqkv out_proj",
    "qwen3_next": "in_proj_ba in_proj_qkvz k_proj o_proj out_proj q_proj shared_expert_gate v_proj",
    "gemma3_vision": "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj",
    "jamba": "down_proj dt_proj gate_proj in_proj k_proj o_proj out_proj q_proj up_proj v_proj x_proj",
    "mamba": "dt_proj in_proj x_proj",
    "mamba2": "in_proj",
    "falcon_mamba": "dt_proj in_proj x_proj",
    "rwkv": "key output receptance value",
    "bamba": "down_proj gate_proj in_proj k_proj o_proj out_proj q_proj up_proj v_proj",
    "falcon_h1": "down_proj gate_proj in_proj k_proj o_proj q_proj up_proj v_proj",
    "recurrent_gemma": "down_proj gate_proj k_proj linear_out linear_x linear_y o_proj q_proj up_proj v_proj",
    "bloom": "dense dense_4h_to_h dense_h_to_4h query_key_value",
    "falcon": "dense dense_4h_to_h dense_h_to_4h query_key_value",
    "gpt_neox": "dense dense_4h_to_h dense_h_to_4h query_key_value",
    "phi3": "down_proj gate_up_proj o_proj qkv_proj",
}
UNREACHED = {"jamba": {"dt_proj"}, "mamba": {"dt_proj"}, "falcon_mamba": {"dt_proj"}}
"""Layers whose weight the model reads by itself, so that an adapter there does nothing."""


FLOAT32_INSIDE = {"bamba", "falcon_h1", "jamba", "mamba2"}
"""Architectures that compute their states in float32 whatever the weights are."""


def exact(name: str) -> PreTrainedModel:
    """The model in float64, whose products over experts have no fused kernel."""
    model = built(name).double()
    model.set_experts_implementation("eager")
    return model


def adapted(name: str) -> tuple[PeftModel, dict[str, Tensor]]:
    """The model in float64 with a random adapter, and the adapter."""
    model = lora_files.attach(exact(name), SHAPE, 0)
    state = {n: (tensor * 0.3).double() for n, tensor in random_state(model).items()}
    lora_files.set_state(model, state)
    return model, state


@pytest.mark.parametrize("name", BUILD)
def test_gradients_equal_a_loop(name: str) -> None:
    model, _ = adapted(name)
    prompts = by_hand.prompts(4, masked=True)
    gradients = PerExampleGradients(model)
    got = gradients(*batch(prompts)).double().numpy()
    wanted = np.stack([_alone(model, prompt) for prompt in prompts])
    scale = np.abs(wanted).max(axis=1, keepdims=True)
    assert scale.min() > 1e-4 and not gradients.one_by_one
    np.testing.assert_allclose(
        got / scale, wanted / scale, rtol=0, atol=1e-5 if name in FLOAT32_INSIDE else 1e-6
    )


def _alone(model: PeftModel, prompt: Encoded) -> np.ndarray:
    """∇ of one prompt's mean loss by an ordinary backward pass; 0 where the loss does not depend on a matrix."""
    own = lora_files.parameters(model)
    ids = torch.tensor([prompt.prompt])
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    counts = torch.tensor(prompt.loss_mask or [True] * len(prompt.prompt))[1:]
    got = torch.autograd.grad(
        losses[counts].mean(), list(own.values()), allow_unused=True, materialize_grads=True
    )
    return by_hand.flat(dict(zip(own, got, strict=True)))


@pytest.mark.parametrize("name", BUILD)
def test_joint_logits_and_plain_peft_equal_transformers_by_hand(name: str, tmp_path: Path) -> None:
    model, state = adapted(name)
    ids = torch.tensor([[2, 5, 9, 4, 11, 7], [3, 8, 6, 30, 21, 5]])
    with torch.no_grad():
        wanted = model(input_ids=ids, use_cache=False).logits
        with model.disable_adapter():
            plain = model(input_ids=ids, use_cache=False).logits
    assert (wanted - plain).abs().max() > 1e-3
    targets = lora_files.saved_targets(model, SHAPE)
    lora_files.save(tmp_path, state, SHAPE, "b", targets=targets)
    read = lora_files.load(tmp_path)
    joint = JointModel(
        lora_files.detach(model), [None, read, ({n: -t for n, t in state.items()}, SHAPE)]
    )
    got = joint.logits(ids, torch.arange(12)).double()
    _close(got[0], plain.flatten(0, 1))
    _close(got[1], wanted.flatten(0, 1))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("error", message=".*missing adapter keys")
        loaded = PeftModel.from_pretrained(exact(name), str(tmp_path)).eval()
        _close(loaded(input_ids=ids, use_cache=False).logits, wanted)
    again = lora_files.attach(built(name), read[1], 0)
    assert lora_files.state(again).keys() == state.keys()


@pytest.mark.parametrize("name", ["opt", "qwen2_moe", "llama4_text", "mamba", "phi3"])
def test_layerwise_mixtures_of_one_member_equal_it(name: str) -> None:
    """Whatever the shape in which a layer gets its rows, each row has its own member."""
    model, state = adapted(name)
    other = {n: -t for n, t in state.items()}
    ids, rows = torch.tensor([[2, 5, 9, 4], [3, 8, 6, 30], [3, 8, 6, 30]]), torch.arange(12)
    backbone = lora_files.detach(model)
    members = [None, (state, SHAPE), (other, SHAPE)]
    wanted = JointModel(backbone, members).logits(ids, rows).view(3, 3, 4, -1)

    def delta(x: Tensor, factors: Factors) -> Tensor:
        return mixed_outputs(x, factors, factors.weights[:, None])

    got = LayerwiseModel(backbone, members, delta).logits(ids, rows, torch.eye(3)[[2, 0, 1]])
    _close(got.view(3, 4, -1), torch.stack([wanted[2, 0], wanted[0, 1], wanted[1, 2]]))


def _close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(
        got, wanted.to(got.dtype), rtol=0, atol=1e-5 * float(wanted.abs().max())
    )


@pytest.mark.parametrize("name", BUILD)
def test_what_is_adapted_and_trained(name: str, tmp_path: Path) -> None:
    """All that the list says and nothing else; a layer that no token reaches keeps B = 0 and moments of 0."""
    model = train(
        tmp_path,
        model=lora_files.attach(built(name), SHAPE, 0),
        lora=SHAPE,
        epochs=1,
        learning_rate=0.02,
    )
    state, moments = lora_files.state(model), Moments.load(tmp_path / "epoch_1")
    leaf = {n: n.rpartition(".lora_")[0].rpartition(".")[2] for n in state}
    assert set(leaf.values()) == set(ADAPTED[name].split())
    assert moments.exp_avg.keys() == state.keys()
    still = {leaf[n] for n, tensor in state.items() if "lora_B" in n and not tensor.any()}
    assert still == UNREACHED.get(name, set())
    for n, tensor in moments.exp_avg_sq.items():
        assert bool(tensor.any()) == (leaf[n] not in still)


@pytest.mark.parametrize(
    ("name", "reason", "names"),
    [
        ("mixtral", EXPERTS, {"gate_up_proj", "down_proj"}),
        ("gpt_oss", EXPERTS, {"gate_up_proj", "down_proj"}),
        ("jetmoe", EXPERTS, {"weight"}),
        ("dbrx", EXPERTS, {"w1", "v1", "w2"}),
        ("llama4_text", ROUTER, {"router"}),
        ("jetmoe", ROUTER, {"layer"}),
        ("gemma3_vision", TOWER, {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("mamba", "PEFT: Module 'out_proj' is incompatible with Mamba-based models (model_type='mamba')", {"out_proj"}),
    ],
)  # fmt: skip
def test_what_is_left_out_is_said(name: str, reason: str, names: set[str]) -> None:
    found = layers_of(built(name), "all-linear")
    assert {n.rpartition(".")[2] for n, why in found.left_out.items() if why == reason} == names
    (line,) = [line for line in found.notes() if line.endswith(f"({reason})")]
    assert line.startswith("not adapted: ")
    if reason == TOWER:
        assert line == f"not adapted: vision_tower ({TOWER})"


def test_nothing_is_left_out_of_a_plain_model() -> None:
    found = layers_of(built("phi3"), "all-linear")
    assert found.targets is None and not found.left_out and not found.notes()


@pytest.mark.parametrize(
    ("name", "targets", "said"),
    [
        ("mixtral", ["q_proj", "gate_up_proj"], "'gate_up_proj' holds the weights of routed experts"),
        ("qwen3_moe", ["experts.down_proj"], "'experts.down_proj' holds the weights of routed experts"),
        ("deepseek_v3", ["up_proj"], "PEFT would put the fused experts in its place"),
        ("gemma3_vision", ["fc1"], "text does not pass through it; it can be on down_proj, gate_proj"),
        ("mamba", ["out_proj"], "PEFT: Module 'out_proj' is incompatible with Mamba-based models"),
        ("opt", ["gate"], "'gate' is no layer of this backbone that can have an adapter; it has fc1, fc2"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_are_refused_in_one_line(
    name: str, targets: list[str], said: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        lora_files.attach(built(name), Lora(r=2, targets=targets), 0)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "base_layer" not in str(caught.value)


def test_named_layers_of_a_model_with_a_tower_are_the_texts() -> None:
    model = lora_files.attach(built("gemma3_vision"), Lora(r=2, targets=["q_proj"]), 0)
    names = list(lora_files.state(model))
    assert len(names) == 4 and all(".language_model." in name for name in names)
