"""What a LoRA folder from elsewhere must be like before its numbers are used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

UNREAD = (
    "use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save",
    "layers_to_transform", "lora_bias", "exclude_modules", "trainable_token_indices",
)  # fmt: skip
"""Settings of PEFT's that would make another adapter of the same tensors."""
RANKS = 65_536


def check_config(config: Any) -> None:
    """Lets through what is plain LoRA.

    Raises:
        ValueError: It is something else, or not as PEFT writes it.
    """
    if not isinstance(config, Mapping):
        raise ValueError("its configuration is no JSON object")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") not in ("none", None):
        raise ValueError("it is not plain LoRA (peft_type, bias)")
    if used := [name for name in UNREAD if config.get(name)]:
        raise ValueError(f"it is not plain LoRA ({', '.join(used)})")
    r, alpha, dropout = (config[name] for name in ("r", "lora_alpha", "lora_dropout"))
    if type(r) is not int or not 1 <= r <= RANKS:
        raise ValueError(f"r is {r!r}")
    for name, value in (("lora_alpha", alpha), ("lora_dropout", dropout)):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}")
    targets = config["target_modules"]
    if not isinstance(targets, str) and not (
        isinstance(targets, list) and all(isinstance(name, str) for name in targets)
    ):
        raise ValueError("target_modules is no list of names")


def check_tensors(tensors: Mapping[str, Tensor], r: int) -> None:
    """Lets through pairs A [r, in] and B [out, r] of finite numbers.

    Raises:
        ValueError: The first tensor that is something else.
    """
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".lora_")
        side = {"A.weight": 0, "B.weight": 1}.get(kind)
        if side is None or f"{layer}.lora_{'BA'[side]}.weight" not in tensors:
            raise ValueError(f"{name} is no half of a pair lora_A, lora_B")
        if tensor.dim() != 2 or tensor.shape[side] != r or not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, for rank {r}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds numbers that are not finite")
