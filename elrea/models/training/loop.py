"""Lightning's Trainer around an AdapterModule: set up, resumed, quiet, and cleaned up after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from elrea.errors import ConfigError, Terminated
from elrea.models.log import Task
from elrea.models.processes import quiet
from elrea.models.training.checkpoint import Keeper, SafetensorsIO, latest
from elrea.models.training.curve import CurveWriter
from elrea.models.training.distributed import share, strategy
from elrea.models.training.early_stop import EarlyStop
from elrea.models.training.module import AdapterModule

PRECISIONS = ("32-true", "32", "bf16-mixed")


def fit(
    module: AdapterModule,
    folder: Path,
    end_epoch: Callable[[int], None],
    task: Task,
    options: Mapping[str, Any],
    stop: EarlyStop | None = None,
) -> None:
    """Train `module` to the end of its plan, or to its early stop, from its newest checkpoint if there is one.

    Args:
        module: holds the model, the plan and the examples.
        folder: for `checkpoint/` and curve.json.
        end_epoch: see `resume.Keeper`.
        task: is told every step's row, on resuming those of the checkpoint first.
        options: accelerator, devices, precision and strategy; what is missing follows from the model.
        stop: what measures the epochs' ends on dev; None trains the whole plan.

    Raises:
        ConfigError: an option that training an adapter does not have.
        TrainingError: see `train_adapter`.
    """
    model, plan = module.model, module.plan
    device = next(model.parameters()).device
    arguments = _arguments(options, device)
    curve, checkpoints = CurveWriter(folder, task), folder / "checkpoint"
    found = latest(checkpoints)
    if found:
        checkpoint = SafetensorsIO().load_checkpoint(found[1])
        module.on_load_checkpoint(checkpoint)
        if share()[0] == 0:
            curve.resume(module.curve)
        if found[0] == plan.total or (stop and stop.over(checkpoint["curve"])):
            # Killed between the last checkpoint and the result.
            module.load_state_dict(checkpoint["state_dict"])
            return
    keeper = Keeper(checkpoints, plan, module.settings.checkpoint_minutes, end_epoch, curve)
    cuda = [device] if device.type == "cuda" else []
    with quiet(), torch.random.fork_rng(devices=cuda):
        trainer = pl.Trainer(
            **arguments,
            min_epochs=0,  # an early stop may come before the end of
            max_epochs=1,  # the plan's epochs are one pass to Lightning: see AdapterModule
            # What is measured on dev is in the checkpoint: first the one, then the other.
            callbacks=[*([stop] if stop else []), keeper],
            # The environment is named so that Lightning does not take over under SLURM.
            plugins=[SafetensorsIO(), LightningEnvironment()],
            default_root_dir=checkpoints,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        model.train()
        backbone: Any = model.get_base_model()
        if module.settings.recompute:
            _named(backbone, "enable")({"use_reentrant": False})
        try:
            trainer.fit(module, ckpt_path=str(found[1]) if found else None)
        except SystemExit as ended:
            # Lightning ends the process itself: at Ctrl-C with the code of an error, at SIGTERM with that of success.
            if isinstance(ended.__context__, KeyboardInterrupt):
                raise type(ended.__context__) from ended  # Terminated is one, too
            if trainer.received_sigterm:
                raise Terminated from ended
            raise
        finally:
            # Lightning leaves the model on the CPU, in train mode, with its last gradients.
            if module.settings.recompute:
                _named(backbone, "disable")()
            model.zero_grad(set_to_none=True)
            model.eval().to(device)


def _named(backbone: Any, what: str) -> Callable[..., None]:
    """transformers' switch of activation checkpointing, by its newer name where there is one."""
    older = f"gradient_checkpointing_{what}"
    found: Callable[..., None] = getattr(
        backbone, f"activation_checkpointing_{what}", None
    ) or getattr(backbone, older)
    return found


def _arguments(options: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The Trainer's arguments that a user chooses, checked."""
    where = {"cuda": "gpu"}.get(device.type, device.type)
    chosen = {"accelerator": where, "devices": 1, "precision": "32-true", "strategy": "one"}
    arguments: dict[str, Any] = {**chosen, **options}
    unknown = sorted(arguments.keys() - chosen.keys())
    if unknown:
        raise ConfigError(f"trainer.{unknown[0]}: training has {', '.join(chosen)}")
    processes = share()[1]
    if processes == 1 and arguments["devices"] == "auto":
        arguments["devices"] = 1
    if arguments["devices"] != processes and not isinstance(arguments["devices"], list):
        raise ConfigError(
            f"trainer.devices={arguments['devices']}: an adapter trains on 1 device, or say trainer=ddp"
        )
    if str(arguments["precision"]) not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision={arguments['precision']}: choose one of {', '.join(PRECISIONS)} "
            "(a bf16 backbone with its float32 adapter is 32-true)"
        )
    if processes == 1 and arguments["strategy"] != "one":
        raise ConfigError(
            f"trainer.strategy={arguments['strategy']}: this process is alone; see elrea.models.training.parallel"
        )
    return {**arguments, "strategy": strategy(arguments["strategy"], processes)}
