"""Config nodes of strategies by name: choices of the group `ensemble`, ours and those of added folders."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from elrea.errors import ConfigError, did_you_mean
from elrea.method.ensemble.strategy import BASE
from elrea.pipeline.hydra_base import hydra_base

RATES = ("rate", "trunk_rate")
"""Fields of strategies that `evaluation.rate` sets."""


def strategy_nodes(folder: Path, names: list[str]) -> dict[str, Any]:
    """Config nodes of strategies by name; Hydra composes them, so that files can inherit from each other.

    Args:
        folder: The config folder. Inside a job, Hydra's search path is used instead.
        names: The wanted strategies; base is added. `all` stands for every choice of the group `ensemble`.

    Raises:
        ConfigError: A name is not a choice of `ensemble`.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    hydra = GlobalHydra.instance()
    with (
        nullcontext()
        if hydra.is_initialized()
        else initialize_config_dir(str(folder.resolve()), **hydra_base())
    ):
        places = _search_path()
        choices = hydra.config_loader().get_group_options(
            "ensemble", ObjectType.CONFIG, None, places
        )
        wanted = dict.fromkeys(name for n in names for name in (choices if n == "all" else [n]))
        if BASE not in wanted:
            wanted = {BASE: None, **wanted}
        for name in wanted:
            if name not in choices:
                raise ConfigError(
                    f"evaluation.strategies: no strategy {name!r}{did_you_mean(str(name), choices)}"
                    f" (there is: {', '.join(choices)})"
                )
        # Composes all strategies at once: each gets its own package s0, s1, ...
        words = [f"+ensemble@s{i}={name}" for i, name in enumerate(wanted)]
        cfg = compose(None, [*places, *words])
    nodes = (OmegaConf.to_container(cfg[f"s{i}"], resolve=False) for i in range(len(wanted)))
    return dict(zip(wanted, map(OmegaConf.create, nodes), strict=True))


def _search_path() -> list[str]:
    """The folders that a job's hydra.searchpath adds, as a word for another composition."""
    from hydra.core.hydra_config import HydraConfig

    found = list(HydraConfig.get().searchpath) if HydraConfig.initialized() else []
    escaped = (str(place).replace("\\", "\\\\").replace("'", "\\'") for place in found)
    listed = ",".join(f"'{place}'" for place in escaped)
    return [f"hydra.searchpath=[{listed}]"] if found else []
