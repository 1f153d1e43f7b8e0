"""Faster linear layers on a CPU for a few rows at a time: W xᵀ instead of x Wᵀ.

torch's product packs the right factor into the processor's blocks before it multiplies. In x Wᵀ that is the weights, so
that five rows take twice as long as one. In W xᵀ it is the rows, and the weights are read once, as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_ROWS = 96
"""Largest number of rows that gains: a decoding step has one row per member and prompt, a prompt's own pass many."""


@contextmanager
def swapped_products(model: nn.Module) -> Iterator[None]:
    """Makes plain float32 linear layers on the CPU compute W xᵀ for at most `MOST_ROWS` rows.

    Results are equal up to rounding.

    Args:
        model: The model whose layers are changed until the context ends.
    """
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and "forward" not in vars(module)  # replaced by another library, whose version has to run
    ]
    for layer in layers:
        layer.forward = _forward(layer)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight, bias = layer.weight, layer.bias
    column = None if bias is None else bias[:, None]

    def forward(rows: Tensor) -> Tensor:
        flat = rows.reshape(-1, rows.shape[-1])
        if not 1 < len(flat) <= MOST_ROWS or rows.dtype != torch.float32:
            return functional.linear(rows, weight, bias)
        product = weight @ flat.T if column is None else torch.addmm(column, weight, flat.T)
        # Contiguous, as a layer's own output is: complex numbers are made of it by some rotary embeddings.
        return product.T.contiguous().view(*rows.shape[:-1], -1)

    return forward
