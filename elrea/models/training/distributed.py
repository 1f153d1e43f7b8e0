"""Several processes that train one adapter, in the same optimiser steps as one process would.

Each process takes its share of a step's examples. A token's loss carries its weight in the whole step (`collate`
divides by the step's examples, wherever they are), so the sum of the processes' gradients is the gradient of one
process, whatever the shares and however they are cut into batches. It is summed once a step: a LoRA adapter's
gradients are one small message, where DDP's own reducer would send one for every backward pass and divide by the
number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from peft import PeftModel

T = TypeVar("T", bool, float)


def share() -> tuple[int, int]:
    """(rank of this process, number of processes); (0, 1) for a process alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def agreed(value: T) -> T:
    """The first process's value, in every process."""
    if share()[1] == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def sum_gradients(parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
    """Replaces every gradient, and the loss, by its sum over the processes, in one message.

    Args:
        parameters: The same ones, in the same order, in each process; one without a gradient here counts as zero.
        loss: This process's part of it, a scalar.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([*(gradient.float().flatten() for gradient in gradients), loss.float()[None]])
    distributed.all_reduce(flat)
    parts = flat[:-1].split([gradient.numel() for gradient in gradients])
    for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
        parameter.grad = part.view_as(gradient).to(gradient.dtype)
    loss.copy_(flat[-1])


def shard(model: PeftModel, device: torch.device) -> None:
    """Leaves this process its part of every backbone weight (FSDP2); the adapter stays whole.

    Decoder layers are gathered one at a time during a pass, all else (embeddings, norm, head) once.

    Args:
        model: Backbone and adapter.
        device: Where this process computes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (share()[1],))
    backbone: nn.Module = model.get_base_model()
    adapter = {parameter for parameter in model.parameters() if parameter.requires_grad}
    lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    for layer in max(lists, key=len, default=[]):
        fully_shard(layer, mesh=mesh, ignored_params=adapter)
    fully_shard(backbone, mesh=mesh, ignored_params=adapter)
