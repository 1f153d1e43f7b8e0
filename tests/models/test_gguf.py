"""GGUF files, written here by the package gguf as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.errors import BackboneError
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.gguf import check, convert, converted

gguf = pytest.importorskip("gguf")

HEADS, KV, HEAD, HIDDEN, INNER, LAYERS = 4, 2, 8, 32, 48, 2
WORDS = ["<unk>", "<s>", "</s>", *map(chr, range(ord("a"), ord("z") + 1)), "Ġ", "th", "the"]


def llama() -> Any:
    """A random model of this shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=HEAD, max_position_embeddings=64,
        tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query's or key's matrix in llama.cpp's order: the two halves of each rotation side by side."""
    return weight.view(heads, 2, HEAD // 2, -1).transpose(1, 2).reshape(weight.shape)


def write(path: Path, model: Any, kind: str = "llama", matrices: str = "F32") -> None:
    """The model as a GGUF file, with its vectors in float32."""
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([2, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm",
        "model.layers.": "blk.",
    }  # fmt: skip
    for name, weight in model.state_dict().items():
        heads = HEADS if "q_proj" in name else KV if "k_proj" in name else 0
        for old, new in names.items():
            name = name.replace(old, new)
        weight = permuted(weight, heads) if heads else weight
        numbers = weight.float().contiguous().numpy()
        if matrices == "F32" or weight.ndim == 1:
            writer.add_tensor(name, numbers)
            continue
        dtype = gguf.GGMLQuantizationType[matrices if numbers.shape[1] % 32 == 0 else "BF16"]
        writer.add_tensor(name, gguf.quants.quantize(numbers, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_folder_computes_what_the_model_did(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, path = llama(), tmp_path / "model.gguf"
    write(path, model)
    convert(path, tmp_path / "out", "# A card")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    wanted = {name: weight.bfloat16().float() for name, weight in model.state_dict().items()}
    for name, weight in found.state_dict().items():
        torch.testing.assert_close(weight, wanted[name], rtol=0, atol=0)
    model.load_state_dict(wanted)
    ids = torch.tensor([[1, 5, 9, 30, 31, 4]])
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, model(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("the", add_special_tokens=False)["input_ids"] == [WORDS.index("the")]
    assert (tmp_path / "out" / "README.md").read_text() == "# A card"
    assert not hasattr(found.config, "quantization_config")


def test_a_backbone_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    path = tmp_path / "Small.Q4.gguf"
    model = llama()
    write(path, model)
    backbone = Pretrained(name=str(path))
    assert backbone.here and backbone.shown_name == "Small.Q4"
    loaded = backbone.load(Device("cpu"))
    ids = torch.tensor([[1, 5, 9, 30]])
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.model(ids).logits, model(ids).logits, rtol=0.02, atol=0.02
        )
    folder = Pretrained(name=backbone.location)
    assert folder.identity() == backbone.identity(), "as the folder that it was converted to"
    before = (Path(backbone.location) / "config.json").stat().st_mtime_ns
    converted.cache_clear()
    assert Pretrained(name=str(path)).length() == 64, "the folder is made once"
    assert (Path(backbone.location) / "config.json").stat().st_mtime_ns == before
    with pytest.raises(BackboneError, match="no such file"):
        Pretrained(name=str(tmp_path / "other.gguf")).identity()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_matrices_with_more_bits_than_bfloat16_are_named(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.gguf"
    write(path, llama(), matrices=kind)
    convert(path, tmp_path / "out")
    said = f"its {kind} matrices are rounded to bfloat16" in caplog.text
    assert said == (kind in ("F32", "F16", "Q8_0"))


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"

    def said() -> str:
        with pytest.raises(BackboneError) as caught:
            check(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such file" in said()
    path.write_bytes(b"PK\x03\x04 a zip")
    assert "not a GGUF file" in said()
    write(path, llama())
    whole = path.read_bytes()
    for share in (0.001, 0.1, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "cut" in said() or "not a GGUF" in said(), share
    write(path, llama(), "no-such-kind")
    assert "cannot read GGUF of 'no-such-kind'; it reads" in said()
