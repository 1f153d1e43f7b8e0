"""What a job refuses before it begins, beside what its parts refuse themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig, OmegaConf

from elrea.errors import ConfigError
from elrea.plugins import named
from elrea.reporting.progress import say, screen

if TYPE_CHECKING:
    from elrea.pipeline.run import Pipeline


def check_plugins(cfg: DictConfig) -> None:
    """Refuses plugins that a config file allows, as one of a folder that somebody else made."""
    given = OmegaConf.select(cfg, "plugins")
    names = list(given) if isinstance(given, ListConfig) else [given] if given else []
    untyped = [name for name in names if name not in named()]
    if untyped:
        raise ConfigError(
            f"plugins: {untyped[0]} comes from a config file; only the command line allows a plugin: type "
            f"plugins=[{untyped[0]}]"
        )


def check_device(pipeline: Pipeline, cfg: DictConfig) -> None:
    """Refuses a device that is not here where something is to be made; a plan for another machine says it.

    Raises:
        ConfigError: There is no such device.
    """
    graph = pipeline.graph
    needed = graph.needed(cfg.until)
    if all(node.stage.done() for name, node in graph.nodes.items() if name in needed):
        return
    try:
        pipeline.experiment.device.resolve()
    except ConfigError as error:
        if not cfg.plan:
            raise
        say(screen(), f"Not on this machine: {error}")


def check_processes(launcher: str, strategy: str) -> None:
    """Refuses several processes in each of several jobs that share this one."""
    if strategy != "one" and not launcher.startswith("submitit"):
        raise ConfigError(
            f"trainer.strategy={strategy} in a sweep: its jobs share this machine's devices and this process, "
            "which one failed group of processes would block; run the jobs one by one, sweep with trainer=auto, or "
            "give each job a machine of its own (hydra/launcher=submitit_slurm)"
        )
