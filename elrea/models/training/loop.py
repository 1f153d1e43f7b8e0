"""The training loop: optimiser steps by Fabric, resumed from the newest checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from elrea.errors import TrainingError
from elrea.models.lora import copied
from elrea.models.processes import quiet
from elrea.models.training.batches import OptimiserStep, steps
from elrea.models.training.checkpoint import Checkpoint, Checkpoints, latest
from elrea.models.training.curve import CurveWriter
from elrea.models.training.distributed import agreed, shard, share, sum_gradients
from elrea.models.training.pass_cost import pass_cost
from elrea.models.training.products import fast_products

if TYPE_CHECKING:
    from torch.optim import Adam

    from elrea.models.log import Task
    from elrea.models.training.early_stop import EarlyStop
    from elrea.models.training.module import AdapterModule


def fit(
    module: AdapterModule,
    folder: Path,
    end_epoch: Callable[[int, Adam], None],
    task: Task,
    options: Mapping[str, Any],
    stop: EarlyStop | None = None,
) -> None:
    """Trains `module` to the end of its schedule or to its early stop, from its newest checkpoint if there is one.

    Args:
        module: Holds the model, the schedule and the examples.
        folder: For `checkpoint/` and curve.json.
        end_epoch: Called in the first process with an epoch's number and the optimiser, before the epoch's checkpoint
            is written, so that what the checkpoint refers to is on disk.
        task: Gets every step's row; on resuming, first those of the checkpoint.
        options: accelerator, precision and strategy, see `elrea.models.device.Device`; the accelerator follows from
            the model if it is missing.
        stop: Measures the loss on dev at epochs' ends; None trains the whole schedule.

    Raises:
        TrainingError: See `train_adapter`.
    """
    curve, first = CurveWriter(folder, task), share()[0] == 0
    saved = latest(folder / "checkpoint")
    if saved:
        module.resume(saved.adapter, saved.names, saved.progress)
        if first:
            curve.resume(module.curve)
    if len(module.curve) == module.schedule.total or (stop and stop.over(module.curve)):
        return  # killed between the last checkpoint and the result
    with _prepared(module, **options) as fabric:
        optimizer = module.configure_optimizers()
        if saved:
            optimizer.load_state_dict(saved.optimizer)
        checkpoints = Checkpoints(folder / "checkpoint", module.settings.checkpoint_minutes)
        for step in steps(
            module.schedule, module.examples, pad_id=module.pad_id, batch_size=module.settings.batch_size,
            done=len(module.curve), share=share(), pass_cost=pass_cost(module.model),
        ):  # fmt: skip
            _take(step, module, optimizer, fabric)
            ended, epoch = module.schedule.ends_epoch(step.number), module.curve[-1]["epoch"]
            due = agreed(ended or checkpoints.due())
            if due:
                _check_finite(step, module)
            if ended and stop:  # first: the checkpoint holds the loss on dev
                stop.end_epoch(module, epoch)
            if ended and first:
                end_epoch(epoch, optimizer)
            if due and first:
                adapter = copied(module.trained)
                checkpoints.save(Checkpoint(adapter, optimizer.state_dict(), module.progress()))
            if first:
                curve.report(module.curve, len(step.names))
            if ended and stop and stop.over(module.curve):
                break


def _take(step: OptimiserStep, module: AdapterModule, optimizer: Adam, fabric: Fabric) -> None:
    """Takes one optimiser step and adds its row to the curve.

    Raises:
        TrainingError: The loss is not a finite number.
    """
    rank, processes = share()
    _seed(module.schedule.dropout_seed(step.number) + rank, module.device)
    rate = module.schedule.rate(step.number)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("multiple", 1)
    optimizer.zero_grad()
    total = torch.zeros((), device=module.device)
    for number, batch in enumerate(step.batches):
        with fabric.autocast():
            loss = module.training_step(batch.to(module.device), number)
            module.backward(loss)
        total += loss.detach()
    parameters = list(module.trained.values())
    for parameter in parameters:
        # No token went through its layer: zero, and Adam's moments decay with it.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    module.on_before_optimizer_step(optimizer)
    if processes > 1:
        sum_gradients(parameters, total)
    value = total.item()
    if not math.isfinite(value):
        raise _diverged(step, module, f"the loss is {value} at")
    if module.settings.clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, module.settings.clip)
    optimizer.step()
    seen = module.curve[-1]["examples"] if module.curve else 0
    module.curve.append(
        {
            "step": step.number,
            "epoch": module.schedule.epoch(step.number),
            "examples": seen + len(step.names),
            "loss": value,
            "learning_rate": rate,
        }
    )


def _check_finite(step: OptimiserStep, module: AdapterModule) -> None:
    """Refuses parameters that the loss of no later step would check.

    Raises:
        TrainingError: One of them is not a finite number.
    """
    finite = torch.stack([parameter.isfinite().all() for parameter in module.trained.values()])
    if not finite.all():  # read once: a GPU is waited for
        raise _diverged(step, module, "the adapter is not finite after")


def _diverged(step: OptimiserStep, module: AdapterModule, what: str) -> TrainingError:
    """The error for numbers that are not finite at a step, with what to change."""
    return TrainingError(
        f"{module.schedule.stage}: {what} step {step.number} (examples {', '.join(step.names)}); "
        "lower the learning rate or set training.clip=1"
    )


def _seed(seed: int, device: torch.device) -> None:
    """Seeds dropout on the device, whatever ran before."""
    if device.type == "cpu":
        # torch.manual_seed would also queue a call for every absent GPU, which is slow.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextmanager
def _prepared(
    module: AdapterModule,
    accelerator: str | None = None,
    precision: Any = "32-true",
    strategy: str = "one",
) -> Iterator[Fabric]:
    """Puts the model on its device, in train mode; afterwards back, in eval mode and without gradients.

    The global random state is left as it was.
    """
    home = next(module.model.parameters()).device
    accelerator = accelerator or {"cuda": "gpu"}.get(home.type, home.type)
    devices = [torch.cuda.current_device()] if accelerator == "gpu" else 1
    # The environment is named so that Fabric does not look for a scheduler's, such as SLURM.
    environment = LightningEnvironment()
    with quiet():
        fabric = Fabric(
            accelerator=accelerator, devices=devices, precision=precision, plugins=[environment]
        )
    model, recompute = module.model, module.settings.recompute
    if strategy == "sharded":
        shard(model, fabric.device)
    module.to(fabric.device)
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        model.train()
        backbone: Any = model.get_base_model()
        if recompute:
            _activation_checkpointing(backbone, "enable")({"use_reentrant": False})
        plain = fabric.device.type == "cpu" and precision in ("32-true", "32")
        try:
            with fast_products(model) if plain else nullcontext():
                yield fabric
        finally:
            if recompute:
                _activation_checkpointing(backbone, "disable")()
            module.zero_grad(set_to_none=True)
            module.to(home).eval()


def _activation_checkpointing(backbone: Any, switch: str) -> Callable[..., None]:
    """transformers' method that enables or disables it, by its newer name where there is one."""
    older = f"gradient_checkpointing_{switch}"
    method: Callable[..., None] = getattr(
        backbone, f"activation_checkpointing_{switch}", None
    ) or getattr(backbone, older)
    return method
