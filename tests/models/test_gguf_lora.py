"""LoRA files of llama.cpp, read by the package gguf and undone by transformers' own tables of names and orders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from elrea.errors import ConfigError
from elrea.models.gguf_lora import ARCHITECTURES, ROTATED, write_lora
from elrea.models.peft_folders import read_folder
from tests.models.builders import filled, gpt2, llama

gguf = pytest.importorskip("gguf")

SMALL: Any = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
BUILD: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "gpt2": gpt2,
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SMALL, head_dim=8)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SMALL)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SMALL, head_dim=8)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**SMALL, head_dim=8)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**SMALL, head_dim=8)),
    "gemma3_text": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**SMALL, head_dim=8)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SMALL)),
    "starcoder2": lambda: hf.Starcoder2ForCausalLM(hf.Starcoder2Config(**SMALL)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**SMALL)),
    "smollm3": lambda: hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**SMALL)),
    "olmo": lambda: hf.OlmoForCausalLM(hf.OlmoConfig(**SMALL)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**SMALL)),
}  # fmt: skip


def adapted(kind: str, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Saves an adapter with random factors on all linear layers; returns ΔW of each, as PEFT computes it."""
    model = filled(BUILD[kind]())
    settings = {"r": 2, "lora_alpha": 6, "target_modules": "all-linear", **settings}
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    peft.save_pretrained(str(folder))
    layers: dict[str, Any] = {
        name: m for name, m in peft.named_modules() if isinstance(m, LoraLayer)
    }
    return {
        name.removeprefix("base_model.model."): layer.get_delta_weight("default").detach()
        for name, layer in layers.items()
    }


def undone(path: Path, model: PreTrainedModel) -> dict[str, np.ndarray]:
    """ΔW of each layer in a file, under transformers' name and in its order."""
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    kind = fields["general.architecture"]
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    config = model.config.to_dict()
    # Others that order rows as llama do: transformers' GGUF loader does not know them.
    processor = TENSOR_PROCESSORS.get("llama" if kind in ROTATED else kind, TensorProcessor)(config)
    names = get_gguf_hf_weights_map(model, processor, model_type=kind)
    found = {}
    for name in (n.removesuffix(".lora_a") for n in tensors if n.endswith(".lora_a")):
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        delta = fields["adapter.lora.alpha"] / b.shape[1] * b @ a
        own = processor.process(weights=delta, name=name).weights
        found[names[name].removesuffix(".weight")] = own
    assert 2 * len(found) == len(tensors)
    return found


@pytest.mark.parametrize("kind", BUILD)
def test_transformers_reads_back_what_peft_adds(kind: str, tmp_path: Path) -> None:
    wanted = adapted(kind, tmp_path / "peft")
    model = BUILD[kind]()
    assert model.config.model_type == kind
    write_lora(tmp_path / "x.gguf", read_folder(tmp_path / "peft"), model.config, "x")
    found = undone(tmp_path / "x.gguf", model)
    if kind == "gpt2":  # the table has them without the model's own prefix
        found = {f"transformer.{name.removeprefix('transformer.')}": d for name, d in found.items()}
    assert found.keys() == wanted.keys()
    for name, delta in wanted.items():
        np.testing.assert_allclose(found[name], delta.numpy(), atol=1e-5)


def test_a_rank_stabilised_adapter_has_the_same_scale(tmp_path: Path) -> None:
    wanted = adapted("llama", tmp_path / "peft", r=4, lora_alpha=3, use_rslora=True)
    write_lora(tmp_path / "x.gguf", read_folder(tmp_path / "peft"), llama().config, "x")
    found = undone(tmp_path / "x.gguf", llama())
    for name, delta in wanted.items():
        np.testing.assert_allclose(found[name], delta.numpy(), atol=1e-5)


def test_what_llama_cpp_has_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    assert set(BUILD) == set(ARCHITECTURES)
    adapted("llama", tmp_path / "peft")
    config = hf.GPTNeoXConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    with pytest.raises(ConfigError, match="an adapter of 'gpt_neox' cannot be written as GGUF"):
        write_lora(tmp_path / "x.gguf", read_folder(tmp_path / "peft"), config, "x")
    tied = llama()
    tied.config.tie_word_embeddings = True
    peft = get_peft_model(tied, LoraConfig(task_type="CAUSAL_LM", target_modules=["lm_head"]))
    peft.save_pretrained(str(tmp_path / "head"), save_embedding_layers=False)
    with pytest.raises(ConfigError, match="lm_head: is the embedding too"):
        write_lora(tmp_path / "x.gguf", read_folder(tmp_path / "head"), tied.config, "x")
