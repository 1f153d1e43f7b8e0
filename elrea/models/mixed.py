"""Linear layers whose weights and products are bfloat16, in a model that is float32 otherwise (`dtype: mixed`).

Most of a pass's time goes into the products with frozen weights. Some processors multiply bfloat16 numbers, which are
added up in float32, twice as fast as float32 numbers. A layer rounds its input and its output (relative error at most
2⁻⁸ each), and in the backward pass the gradients likewise; norms, attention, adapters, the head and the loss are not
rounded. A whole bfloat16 model and automatic mixed precision round there too.
"""

from __future__ import annotations

import logging
import statistics
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class MixedLinear(nn.Linear):
    """x Wᵀ + b with W and x in bfloat16, from float32 to float32."""

    def forward(self, x: Tensor) -> Tensor:
        product = functional.linear(x.to(torch.bfloat16), self.weight).to(x.dtype)
        return product if self.bias is None else product + self.bias


class MixedConv1D(Conv1D):
    """x W + b with W and x in bfloat16, from float32 to float32: the linear layer of GPT-2."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.bfloat16) @ self.weight).to(x.dtype) + self.bias


_MIXED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: MixedLinear, Conv1D: MixedConv1D}


def to_mixed(model: PreTrainedModel) -> None:
    """Turns a float32 model's plain linear layers, except the head, into mixed ones, one after the other.

    Layers of other classes (fused experts, for example) stay float32. A layer whose weights are those of another
    module too stays as well.
    """
    head = model.get_output_embeddings()
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for module in model.modules():
        kind = _MIXED.get(type(module))
        weight: Any = module.weight if kind else None
        if kind is None or module is head or owners[id(weight)] > 1:
            continue
        module.__class__ = kind
        module.weight = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
    _warn_if_slower(model.device)


def _warn_if_slower(device: torch.device) -> None:
    """Says so where the CPU multiplies bfloat16 numbers no faster than float32 ones; takes some 20 ms."""
    if device.type != "cpu":
        return
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(5):
        for kind, each in seconds.items():
            rows, weight = torch.ones(64, 512, dtype=kind), torch.ones(512, 512, dtype=kind)
            start = time.perf_counter()
            functional.linear(rows, weight)
            each.append(time.perf_counter() - start)
    full, half = (statistics.median(each) for each in seconds.values())
    if half > full:
        log.warning(
            "backbone.dtype=mixed is no faster here: a bfloat16 product takes %.1f times as long as a float32 one; "
            "say backbone.dtype=float32",
            half / full,
        )
