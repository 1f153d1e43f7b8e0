"""Tiny random models of many architectures: those whose layers, experts or states a LoRA tool can trip over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

from tests.models.builders import VOCABULARY, filled

IDS: Any = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
PLAIN: Any = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, **IDS,
}  # fmt: skip
DENSE: Any = {
    **PLAIN, "intermediate_size": 24, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
EXPERTS: Any = {**DENSE, "num_experts_per_tok": 2}
MAMBA: Any = {
    "hidden_size": 16,
    "state_size": 4,
    "num_heads": 4,
    "head_dim": 8,
    "n_groups": 1,
    "chunk_size": 8,
}
VISION: Any = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
SSM: Any = {
    "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 4, "mamba_expand": 2,
    "mamba_chunk_size": 8,
}  # fmt: skip


def _gemma3_with_vision() -> PreTrainedModel:
    text: Any = {**DENSE, "head_dim": 8, "sliding_window": 16}
    config = hf.Gemma3Config(
        text_config=text, vision_config=VISION, mm_tokens_per_image=4, image_token_index=5,
        boi_token_index=3, eoi_token_index=4, **IDS,
    )  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(config)


def _deepseek() -> PreTrainedModel:
    config = hf.DeepseekV3Config(
        **EXPERTS, n_routed_experts=4, moe_intermediate_size=12, n_group=2, topk_group=1, first_k_dense_replace=1,
        kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8,
    )  # fmt: skip
    return hf.DeepseekV3ForCausalLM(config)


def _jamba() -> PreTrainedModel:
    config = hf.JambaConfig(
        **{**EXPERTS, "num_hidden_layers": 4}, num_experts=4, attn_layer_period=2, attn_layer_offset=1,
        expert_layer_period=2, expert_layer_offset=1, mamba_d_state=4, mamba_dt_rank=4,
    )  # fmt: skip
    return hf.JambaForCausalLM(config)


BUILD: dict[str, Callable[[], PreTrainedModel]] = {
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(**PLAIN, ffn_dim=24, max_position_embeddings=512, word_embed_proj_dim=16)
    ),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**EXPERTS, num_local_experts=4)),
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(
            **EXPERTS, num_experts=4, moe_intermediate_size=12, shared_expert_intermediate_size=12
        )
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**EXPERTS, num_experts=4, moe_intermediate_size=12)
    ),
    "olmoe": lambda: hf.OlmoeForCausalLM(hf.OlmoeConfig(**EXPERTS, num_experts=4)),
    "deepseek_v3": _deepseek,
    "gpt_oss": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **{**EXPERTS, "max_position_embeddings": 131072}, head_dim=8, num_local_experts=4, sliding_window=16
        )
    ),
    "granitemoe": lambda: hf.GraniteMoeForCausalLM(
        hf.GraniteMoeConfig(**EXPERTS, num_local_experts=4)
    ),
    "granitemoeshared": lambda: hf.GraniteMoeSharedForCausalLM(
        hf.GraniteMoeSharedConfig(**EXPERTS, num_local_experts=4, shared_intermediate_size=12)
    ),
    "llama4_text": lambda: hf.Llama4ForCausalLM(
        hf.Llama4TextConfig(
            **{**EXPERTS, "num_experts_per_tok": 1}, num_local_experts=4, head_dim=8, intermediate_size_mlp=24,
            attention_chunk_size=32,
        )
    ),
    "phimoe": lambda: hf.PhimoeForCausalLM(hf.PhimoeConfig(**EXPERTS, num_local_experts=4)),
    "jetmoe": lambda: hf.JetMoeForCausalLM(
        hf.JetMoeConfig(
            **{k: v for k, v in EXPERTS.items() if k != "num_attention_heads"}, kv_channels=8, num_local_experts=4
        )
    ),
    "dbrx": lambda: hf.DbrxForCausalLM(
        hf.DbrxConfig(
            vocab_size=VOCABULARY, d_model=16, n_heads=4, n_layers=2, max_seq_len=64,
            attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
            ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}, **IDS,
        )
    ),
    "qwen3_next": lambda: hf.Qwen3NextForCausalLM(
        hf.Qwen3NextConfig(
            **EXPERTS, head_dim=8, num_experts=4, moe_intermediate_size=12, shared_expert_intermediate_size=12,
            linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
            layer_types=["linear_attention", "full_attention"],
        )
    ),
    "gemma3_vision": _gemma3_with_vision,
    "jamba": _jamba,
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=VOCABULARY, num_hidden_layers=2, hidden_size=16, state_size=4)
    ),
    "mamba2": lambda: hf.Mamba2ForCausalLM(
        hf.Mamba2Config(vocab_size=VOCABULARY, num_hidden_layers=2, **MAMBA, **IDS)
    ),
    "falcon_mamba": lambda: hf.FalconMambaForCausalLM(
        hf.FalconMambaConfig(vocab_size=VOCABULARY, num_hidden_layers=2, hidden_size=16, state_size=4)
    ),
    "rwkv": lambda: hf.RwkvForCausalLM(
        hf.RwkvConfig(
            vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16, intermediate_size=24
        )
    ),
    "bamba": lambda: hf.BambaForCausalLM(
        hf.BambaConfig(**DENSE, **SSM, attn_layer_indices=[1])
    ),
    "falcon_h1": lambda: hf.FalconH1ForCausalLM(
        hf.FalconH1Config(**DENSE, **SSM, mamba_d_ssm=32)
    ),
    "recurrent_gemma": lambda: hf.RecurrentGemmaForCausalLM(
        hf.RecurrentGemmaConfig(
            **{**PLAIN, "num_hidden_layers": 3}, intermediate_size=24, lru_width=16, attention_window_size=16,
            num_key_value_heads=1,
        )
    ),
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=2, **IDS)
    ),
    "falcon": lambda: hf.FalconForCausalLM(hf.FalconConfig(**PLAIN)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**{**PLAIN, "intermediate_size": 24})),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**DENSE)),
}  # fmt: skip
"""By a name of the architecture."""


def built(name: str) -> PreTrainedModel:
    """A model with random matrices from one seed, without dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of what is no matrix
        return filled(BUILD[name]())
