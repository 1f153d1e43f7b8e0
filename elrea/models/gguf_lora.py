"""LoRA adapters as GGUF files for llama.cpp, in the layout of its own converter (`convert_lora_to_gguf.py`).

A file has `general.type=adapter`, `adapter.type=lora`, `adapter.lora.alpha` and, for every adapted tensor of the
backbone's GGUF file, `<name>.lora_a` [r, in] and `<name>.lora_b` [out, r] in float32. llama.cpp adds
scale·(alpha/r)·B·A·x, where `scale` is given by who serves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError, ConfigError
from elrea.models.peft_folders import PREFIX

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.models.peft_folders import PeftFolder

ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "granite": "granite", "smollm3": "smollm3", "olmo": "olmo",
    "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3",
    "phi3": "phi3", "gpt2": "gpt2", "olmo2": "olmo2", "starcoder2": "starcoder2",
}  # fmt: skip
"""Name in llama.cpp of each `model_type` whose linear layers it keeps as they are, but for `ROTATED`."""

ROTATED = ("llama", "granite", "smollm3", "olmo")
"""Architectures of llama.cpp whose queries and keys pair neighbouring rows in the rotary embedding, where transformers
pairs the halves of a head: the rows of q_proj and k_proj are reordered."""


def architecture_of(config: Any, name: str) -> str:
    """The architecture's name in llama.cpp.

    Args:
        config: Of the backbone.
        name: The backbone, for the message.

    Raises:
        ConfigError: The package gguf is missing, or the backbone's layers are split or reordered there in a way that is
            not known here.
    """
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ConfigError("--as gguf needs the package gguf: pip install 'elrea[gguf]'") from error
    kind = str(getattr(config, "model_type", None))
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"{name}: an adapter of {kind!r} cannot be written as GGUF here (there is: "
            f"{', '.join(sorted(ARCHITECTURES))}); export --as merged, and convert the whole model by llama.cpp"
        )
    return ARCHITECTURES[kind]


def write_lora(path: Path, adapter: PeftFolder, config: Any, name: str) -> None:
    """Writes one adapter.

    Args:
        path: The file to make; its folder exists.
        adapter: The adapter.
        config: Of the backbone that it was trained on.
        name: What the file calls it.

    Raises:
        ConfigError: As `architecture_of`; or a layer has no name in llama.cpp.
        BackboneError: The adapter is not for this backbone.
    """
    kind = architecture_of(config, adapter.backbone or "the backbone")
    import gguf

    writer = gguf.GGUFWriter(path, kind)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp knows alpha/r alone: a rank-stabilised adapter gets the alpha that scales it the same.
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.lora.scale * adapter.lora.r)
    for tensor, a, b in _tensors(adapter, config, kind):
        writer.add_tensor(f"{tensor}.weight.lora_a", a.numpy())
        writer.add_tensor(f"{tensor}.weight.lora_b", b.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(adapter: PeftFolder, config: Any, kind: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name in llama.cpp, A [r, in] and B [out, r] of every adapted layer, in its order of rows."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    text = config.get_text_config()
    arch = next(arch for arch, known in MODEL_ARCH_NAMES.items() if known == kind)
    names = get_tensor_name_map(arch, text.num_hidden_layers)
    queries = int(text.num_attention_heads)
    heads = {
        "q_proj": queries,
        "k_proj": int(getattr(text, "num_key_value_heads", None) or queries),
    }
    for layer in adapter.layers:
        found = names.get_name(layer)
        if found is None:
            raise ConfigError(f"{layer}: llama.cpp has no such layer in {kind}; adapt other layers")
        if found == "output" and getattr(text, "tie_word_embeddings", False):
            raise ConfigError(
                f"{layer}: is the embedding too (tie_word_embeddings), and llama.cpp has no adapter for it alone"
            )
        a, b = (adapter.tensors[f"{PREFIX}{layer}.lora_{side}.weight"].float() for side in "AB")
        own = layer.rpartition(".")[2]
        if kind in ROTATED and own in heads:
            b = interleaved(b, heads[own], layer)
        yield found, a.contiguous(), b.contiguous()


def interleaved(b: Tensor, heads: int, layer: str) -> Tensor:
    """The rows of B in llama.cpp's order: row i and row i + d/2 of a head of d rows become neighbours.

    Args:
        b: [heads·d, r].
        heads: Number of heads.
        layer: For the message.

    Raises:
        BackboneError: The rows are not those of so many heads.
    """
    if len(b) % (2 * heads):
        raise BackboneError(f"{layer}: {len(b)} rows are not {heads} heads of even size")
    return b.view(heads, 2, len(b) // heads // 2, -1).transpose(1, 2).reshape(b.shape)
