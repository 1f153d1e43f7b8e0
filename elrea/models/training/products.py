"""LoRA's products in training, with less work around them than in PEFT's layers (on a CPU).

PEFT computes W·x + (B·(A·dropout(x)))·s by one operation after the other. Here s scales A·x, which has only r columns,
the sum is made where W·x lies, and the backward pass reads its operands in the order in which they lie in memory: by
columns, the products with r columns ran at a seventh of their speed. The values are PEFT's, up to the rounding of
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@contextmanager
def fast_products(model: nn.Module) -> Iterator[None]:
    """Within it, the model's plain LoRA layers compute by `_Update`; all others stay as PEFT has them.

    Args:
        model: A PEFT model with one float32 adapter, on a CPU, outside of automatic mixed precision.
    """
    layers = [(layer, update) for layer in model.modules() if (update := _update(layer))]
    try:
        for layer, update in layers:
            layer.forward = update
        yield
    finally:
        for layer, _ in layers:
            del layer.forward


def _update(layer: Any) -> Callable[[Tensor], Tensor] | None:
    """The forward pass of a plain LoRA layer.

    None for one that adds something else to its output, whose forward pass is replaced already, or whose A or B is
    hooked: a hook there changes or reads what passes between them (steered adapters do).
    """
    from peft.tuners.lora.layer import Linear

    if type(layer) is not Linear or layer.merged or layer.disable_adapters or layer.lora_variant:
        return None
    (name,) = layer.active_adapters
    down, up, scale = layer.lora_A[name], layer.lora_B[name], float(layer.scaling[name])
    dropout, base = layer.lora_dropout[name], layer.base_layer
    if _watched(layer, down, up):
        return None
    weights = (*down.parameters(), *up.parameters())
    if len(weights) != 2 or any(weight.dtype != torch.float32 for weight in weights):
        return None

    def forward(x: Tensor) -> Tensor:
        result: Tensor = base(x)
        if result.dtype != torch.float32 or x.dtype != torch.float32:
            added: Tensor = up(down(dropout(x.float()))) * scale
            return (result + added).to(result.dtype)
        updated: Tensor = _Update.apply(result, dropout(x), down.weight, up.weight, scale)
        return updated

    return forward


def _watched(layer: nn.Module, *inside: nn.Module) -> bool:
    """Whether somebody has replaced the layer's forward pass, or hooked one of the modules inside it."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(layer) or any(
        getattr(module, name) for module in inside for name in hooks
    )


class _Update(torch.autograd.Function):
    """result + scale · B·A·x, in place where the result is nobody else's."""

    @staticmethod
    def forward(
        ctx: Any, result: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ down.t()  # [tokens, r]
        if scale != 1:
            low *= scale
        ctx.save_for_backward(rows, low, down, up)
        ctx.scale = scale
        if result.is_contiguous() and not result._is_view():
            result.view(-1, result.shape[-1]).addmm_(low, up.t())
            ctx.mark_dirty(result)
            return result
        return torch.addmm(result.reshape(-1, result.shape[-1]), low, up.t()).view(result.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, down, up = ctx.saved_tensors
        out = grad.reshape(-1, grad.shape[-1])
        # With up as [r, out] and the products' results as [r, ...], no operand of many rows is read by columns.
        back = out @ up.t().contiguous().t()  # [tokens, r]
        if ctx.scale != 1:
            back *= ctx.scale
        _, x_wanted, down_wanted, up_wanted, _ = ctx.needs_input_grad
        return (
            grad,
            (back @ down).view(*grad.shape[:-1], -1) if x_wanted else None,
            back.t() @ rows if down_wanted else None,
            (low.t() @ out).t() if up_wanted else None,
            None,
        )
