"""LoRA adapters: PEFT's names and folders, and an initial A that depends on the seed alone."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

from elrea.errors import ConfigError, TrainingError
from elrea.models import lora as lora_files
from elrea.models.adapter_shape import Lora
from tests.models.builders import BUILDERS, VOCABULARY, gpt2, llama, random_state

KINDS = ["llama", "gpt2"]
IDS = torch.arange(2, 18).reshape(2, 8) % VOCABULARY


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_peft_saves(kind: str) -> None:
    model = lora_files.attach(BUILDERS[kind](), Lora(r=2), 0)
    own, peft = lora_files.state(model), get_peft_model_state_dict(model)
    assert own.keys() == peft.keys()
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, peft[name], rtol=0, atol=0)


def test_all_linear_layers_but_the_head_are_adapted() -> None:
    def layers(model: PeftModel) -> set[str]:
        names = lora_files.state(model)
        return {name.partition(".lora_")[0].rpartition(".")[2] for name in names}

    on_llama = lora_files.attach(llama(), Lora(), 0)
    assert layers(on_llama) == set(
        "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
    )
    assert len(lora_files.state(on_llama)) == 2 * 7 * 2
    on_gpt2 = lora_files.attach(gpt2(), Lora(), 0)
    assert layers(on_gpt2) == {"c_attn", "c_proj", "c_fc"}
    assert len(lora_files.state(on_gpt2)) == 2 * 4 * 2  # c_proj twice a layer
    some = lora_files.attach(llama(), Lora(targets=["q_proj"]), 0)
    assert layers(some) == {"q_proj"}


@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_loads_the_folder_with_equal_logits(kind: str, tmp_path: Path) -> None:
    lora = Lora(r=2, alpha=3.0)
    model = lora_files.attach(BUILDERS[kind](), lora, 0)
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        lora_files.set_state(model, random_state(model))
        expected = model(input_ids=IDS).logits
        assert not torch.allclose(before, expected, atol=0.1)
        lora_files.save(tmp_path, lora_files.state(model), lora, "b", transposed=kind == "gpt2")
        with warnings.catch_warnings():
            # PEFT warns if the folder does not say that its layers are Conv1D.
            warnings.filterwarnings("error", message=".*fan_in_fan_out")
            loaded = PeftModel.from_pretrained(BUILDERS[kind](), str(tmp_path)).eval()
        torch.testing.assert_close(loaded(input_ids=IDS).logits, expected, rtol=0, atol=0)
    assert loaded.peft_config["default"].base_model_name_or_path == "b"


def test_save_and_load_are_inverse(tmp_path: Path) -> None:
    model = lora_files.attach(llama(), Lora(r=2), 0)
    tensors = random_state(model)
    lora = Lora(r=2, alpha=5.5, dropout=0.25, targets=["v_proj", "q_proj"])
    lora_files.save(tmp_path / "a", tensors, lora, "b")
    loaded, shape = lora_files.load(tmp_path / "a")
    assert shape == lora
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    lora_files.save(tmp_path / "b", tensors, Lora(r=2), "b")
    assert lora_files.load(tmp_path / "b")[1].targets == sorted(
        "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
    )
    (tmp_path / "a" / lora_files.WEIGHTS).write_bytes(b"cut short")
    with pytest.raises(TrainingError, match="not a readable LoRA folder"):
        lora_files.load(tmp_path / "a")
    with pytest.raises(TrainingError, match="no such file"):
        lora_files.load(tmp_path / "nowhere")


def test_the_initial_adapter_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = lora_files.attach(llama(), Lora(r=2), 0)
    torch.manual_seed(6)
    second = lora_files.attach(llama(), Lora(r=2, targets=["q_proj"]), 0)
    other = lora_files.attach(llama(), Lora(r=2), 1)
    a, b, c = map(lora_files.state, (first, second, other))
    assert all(torch.equal(a[name], b[name]) for name in b)
    for name, tensor in a.items():
        if "lora_B" in name:
            assert not tensor.any()
            continue
        bound = tensor.shape[1] ** -0.5
        assert tensor.abs().max() <= bound and tensor.abs().max() > 0.7 * bound
        assert not torch.equal(tensor, c[name])
    matrices = [tensor for name, tensor in a.items() if "lora_A" in name]
    assert not torch.equal(matrices[0], matrices[1])


def test_attach_does_not_change_the_global_random_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = llama()
    torch.manual_seed(5)
    lora_files.attach(model, Lora(r=2), 0)
    assert torch.equal(torch.rand(3), expected)


def test_only_the_adapter_is_trainable() -> None:
    model = lora_files.attach(llama(), Lora(r=2), 0)
    lora_files.check_trainable(model)
    next(model.parameters()).requires_grad_(True)
    with pytest.raises(TrainingError, match=r"29 parameters .* its adapter has 28"):
        lora_files.check_trainable(model)


def test_detach_gives_the_backbone_back() -> None:
    backbone = llama()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = lora_files.attach(backbone, Lora(r=2), 0)
    lora_files.set_state(model, random_state(model))
    with pytest.raises(TrainingError, match="detach it first"):
        lora_files.attach(backbone, Lora(r=4), 0)
    after = lora_files.detach(model).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    lora_files.attach(backbone, Lora(r=4), 0)


def test_a_half_precision_backbone_gets_a_float32_adapter() -> None:
    model = lora_files.attach(llama().bfloat16(), Lora(r=2), 0)
    assert {tensor.dtype for tensor in lora_files.state(model).values()} == {torch.float32}


def test_set_state_refuses_other_names_and_shapes() -> None:
    model = lora_files.attach(llama(), Lora(r=2), 0)
    tensors = lora_files.state(model)
    name = next(iter(tensors))
    with pytest.raises(TrainingError, match="not in the given tensors"):
        lora_files.set_state(model, {k: v for k, v in tensors.items() if k != name})
    with pytest.raises(TrainingError, match="extra is not in the model"):
        lora_files.set_state(model, {**tensors, "extra": tensors[name]})
    with pytest.raises(TrainingError, match=r"is \[3, 16\], the model has \[2, 16\]"):
        lora_files.set_state(model, {**tensors, name: torch.zeros(3, 16)})


def test_wrong_shapes_are_refused_by_their_keys() -> None:
    with pytest.raises(TrainingError, match=r"'nope' is no layer .* has down_proj, gate_proj"):
        lora_files.attach(llama(), Lora(targets=["nope"]), 0)
    wrong = [("r", 0), ("alpha", -1.0), ("alpha", math.nan), ("dropout", 1.0), ("targets", [])]
    for field, value in wrong:
        with pytest.raises(ConfigError, match=rf"adapter\.{field}"):
            Lora(**{field: value})  # type: ignore[arg-type]


def test_scale() -> None:
    assert Lora(r=8).scale == 4
    assert Lora(r=8, alpha=8).scale == 1
