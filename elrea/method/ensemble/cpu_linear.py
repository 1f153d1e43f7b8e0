"""Products of a few rows with a backbone's matrices on a CPU, at little more than the price of one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW = 96
"""Rows, at most, that are worth it: a step of decoding has one per member and prompt, a prompt's own pass far more."""


@contextmanager
def few_rows(model: nn.Module) -> Iterator[None]:
    """Lets a model's plain linear layers on the CPU, in float32, take few rows as W xᵀ instead of x Wᵀ.

    The numbers are the same but for rounding. The library's product packs the larger factor on the right, here the
    weights, before it multiplies: five rows cost twice one row's time. With the weights on the left it packs the rows,
    and the weights are read once, as they lie.

    Args:
        model: Whose layers change until the context ends.
    """
    swapped = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and "forward" not in vars(module)  # another library's, which has to run
    ]
    for module in swapped:
        module.forward = _product(module)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for module in swapped:
            del module.forward


def _product(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight, bias = module.weight, module.bias
    column = None if bias is None else bias[:, None]

    def forward(rows: Tensor) -> Tensor:
        flat = rows.reshape(-1, rows.shape[-1])
        if not 1 < len(flat) <= FEW or rows.dtype != torch.float32:
            return functional.linear(rows, weight, bias)
        product = weight @ flat.T if column is None else torch.addmm(column, weight, flat.T)
        return product.T.view(*rows.shape[:-1], -1)

    return forward
