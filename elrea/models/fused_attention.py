"""Attention on the meta device that keeps for the backward pass what a fused kernel keeps.

torch takes its plain way on the meta device, which keeps the weights of all tokens for all others. A real pass takes a
fused kernel, which computes them again, unless none fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def as_on(
    device: str, dtype: torch.dtype, config: PreTrainedConfig, length: int, mask: Tensor
) -> AbstractContextManager[Any]:
    """Makes attention keep what it keeps on a device; a model that computes it by products (Gemma 2) is left as it is.

    No fused kernel fits, and torch takes its plain way there too, for values of another width than the keys, on a CPU
    for attention with dropout, and on a GPU for float32 with fewer heads of keys than of queries.

    Args:
        device: Type of device.
        dtype: Of queries and keys.
        config: The model's configuration.
        length: Tokens per sequence.
        mask: The mask that the model is called with; a real pass has none, unless a window is shorter than `length`.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0)
    grouped = (getattr(text, "num_key_value_heads", None) or heads) != heads
    if device != "cpu" and dtype == torch.float32 and grouped:
        return nullcontext()
    names = ("sliding_window", "attention_chunk_size")
    windows = [getattr(text, name, None) for name in names]
    return _Fused(device, mask, any(window and window <= length for window in windows))


class _Fused(TorchFunctionMode):
    """`masked`: real passes have a mask in place of `mask`."""

    def __init__(self, device: str, mask: Tensor, masked: bool) -> None:
        super().__init__()
        self.device, self.mask, self.masked = device, mask, masked

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        **given: Any,
    ) -> Tensor:
        if (dropout_p and self.device == "cpu") or query.shape[-1] != value.shape[-1]:
            return scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, **given)
        kept = attn_mask
        if attn_mask is self.mask:
            # A mask of a window is made into numbers in each layer. Layers without a window count as those with one.
            kept = query.new_empty(len(query), 1, *self.mask.shape[-2:]) if self.masked else None
        found: Tensor = _Attention.apply(query, key, value, kept)
        return found


class _Attention(torch.autograd.Function):
    """The shape of the result; for the backward pass: the arguments, the result and a number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        found = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, found, sums)
        return found

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("nothing is computed on the meta device")
