"""One adapter trained by several processes, so that its steps are those of one process.

Each process takes its share of a step's examples. A token's loss carries its weight in the whole step (`collate`
divides by the step's examples, wherever they are), so that the sum of the processes' gradients is the gradient of one
process, whatever the shares and however they are cut into batches. It is summed once a step: a LoRA adapter's
gradients are one small message, where DDP's own reducer would send one for every backward pass and divide by the
number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from peft import PeftModel


def share() -> tuple[int, int]:
    """(which of the processes this one is, how many there are); (0, 1) for a process alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


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


class Replicas(DDPStrategy):
    """Every process has the whole backbone. Its gradients are summed by `sum_gradients`, not by DDP's wrapper."""

    def configure_ddp(self) -> None:
        """Leave the module unwrapped."""


class Shards(ModelParallelStrategy):
    """Every process has a part of each backbone weight (FSDP2), and the whole adapter.

    So a checkpoint is what it is for one process, and is written and read as Lightning does for one.
    """

    def __init__(self, devices: int) -> None:
        super().__init__(data_parallel_size=devices, tensor_parallel_size=1)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def strategy(name: str, devices: int) -> Strategy | str:
    """Lightning's strategy for one of `elrea.models.device.Device.strategy`'s names."""
    if name == "ddp":
        return Replicas()
    return Shards(devices) if name == "sharded" else "auto"


def shard(model: PeftModel, mesh: Any) -> None:
    """Leave this process its part of every backbone weight; the adapter stays whole.

    Decoder layers are gathered one at a time as the pass comes to them, all else (embeddings, norm, head) once.

    Args:
        model: Backbone and adapter.
        mesh: One dimension of devices.
    """
    from torch.distributed.fsdp import fully_shard

    backbone: nn.Module = model.get_base_model()
    adapter = {parameter for parameter in model.parameters() if parameter.requires_grad}
    lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    for layer in max(lists, key=len, default=[]):
        fully_shard(layer, mesh=mesh, ignored_params=adapter)
    fully_shard(backbone, mesh=mesh, ignored_params=adapter)
