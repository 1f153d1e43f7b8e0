"""Keeps a run's folder from being overwritten by a run of another configuration.

A folder belongs to the run whose `config.yaml` is in it; that file is written when the work begins. The same
configuration resumes there. It may differ in keys that change no result: where and how fast the run is made, and what
ends it early.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from elrea.config import leaves, load_config, shareable
from elrea.errors import ConfigError, StoreError
from elrea.models.start import TAKEN
from elrea.pipeline.choices import RATES
from elrea.reporting.sweeps import CHANGE_NO_RESULT, STATUS, SUMMARY, SWEEP, is_below
from elrea.store.files import read_json

CONFIG = "config.yaml"
MAY_DIFFER = (*CHANGE_NO_RESULT, "hydra")
"""Config keys, with all keys below them, that do not change what a run finds out; `check_version` looks at those that
do with dropout."""


def check_run_folder(folder: Path, cfg: DictConfig, key: str) -> None:
    """Refuses a folder that holds results of another configuration, or a sweep.

    A run that failed before it left any result does not keep its folder.

    Args:
        folder: Where a run is going to write.
        cfg: Its composed config.
        key: The config key that names the folder, for the message.

    Raises:
        ConfigError: One line with the first key that differs.
    """
    if cfg.get("plan"):
        return  # writes nothing
    if (folder / SWEEP).is_file():
        raise ConfigError(f"{key}={folder}: holds a sweep; name another folder")
    if not (folder / CONFIG).is_file() or _left_nothing(folder):
        return
    try:
        found = leaves(load_config(folder / CONFIG))
    except ConfigError:
        return  # damaged: it cannot be told, and the same command writes it again
    different = difference(found, _as_saved(leaves(resolved(cfg)), found, _chosen(cfg)))
    if different is not None:
        raise ConfigError(
            f"{key}={folder}: holds a run of another configuration ({different}); name another folder, or repeat that "
            "run's command to resume it"
        )


def _as_saved(composed: Mapping[str, Any], found: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """A composed config as `config.yaml` has it, where `ensemble` and `adapter` show the settings that are used.

    Args:
        composed: The config, by dotted keys.
        found: Of `config.yaml`.
        chosen: The strategy that `ensemble=` names.
    """
    saved, own = dict(composed), f"evaluation.settings.{chosen}."
    for name in RATES:
        key = f"ensemble.{name}"
        if saved.get("evaluation.rate") and found.get(key) == saved["evaluation.rate"]:
            saved[key] = saved["evaluation.rate"]
    if saved.get("adapter.start"):  # it decides these
        saved |= {key: found[key] for name in TAKEN if (key := f"adapter.{name}") in found}
    for key in composed:
        if key.startswith(own):
            replaced = f"ensemble.{key.removeprefix(own)}"
            saved = {
                name: value for name, value in saved.items() if not is_below(name, (replaced,))
            }
            saved[replaced] = composed[key]
    return saved


def _chosen(cfg: DictConfig) -> str:
    choices = OmegaConf.select(cfg, "hydra.runtime.choices")
    if choices is None and HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
    return str(choices["ensemble"]) if choices else ""


def check_version(folder: Path, cfg: DictConfig, keys: Mapping[str, str]) -> None:
    """Refuses a folder whose results were made from other stages, though the configuration is the same: by an older
    version, whose prompts were worded otherwise, or by another number of processes, whose dropout masks were others.

    Args:
        folder: Where a run is going to write.
        cfg: Its composed config.
        keys: Of its stages, by name.

    Raises:
        ConfigError: One line with the first stage that differs.
    """
    try:
        stages = read_json(folder / SUMMARY)["stages"]
        before, now = leaves(load_config(folder / CONFIG)), leaves(resolved(cfg))
        changed = [name for name in stages if keys.get(name, "") != stages[name]["key"]]
    except (ConfigError, StoreError, LookupError, TypeError):
        return  # no results, or none that can be read
    if changed and before.keys() != now.keys():
        raise ConfigError(
            f"{folder}: holds results of an earlier version, of other prompts or stages ({changed[0]} has another "
            "key); name another folder"
        )
    if any(name in keys for name in changed) and _together(before) != _together(now):
        raise ConfigError(
            f"{folder}: holds results of other dropout masks ({changed[0]} has another key): processes that train "
            f"together: {_together(before)} there, {_together(now)} here; name another folder"
        )


def _together(settings: Mapping[str, Any]) -> int:
    """`Device.together` of a config, by dotted keys."""
    strategy = settings.get("trainer.strategy", "one")
    return 1 if strategy == "one" else int(settings.get("trainer.devices", 1))


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first key in which two configs, by dotted keys, differ, with both values; None if they are the same.

    A key that only one of them has is no difference: another version has other keys (see `check_version`). Where one
    has a value and the other has keys below it, that is one.
    """
    for key in sorted(one.keys() | other.keys()):
        if is_below(key, MAY_DIFFER):
            continue
        if key in one and key in other:
            if one[key] != other[key]:
                return f"{key}: {one[key]} there, {other[key]} here"
            continue
        values, lacks = (one, other) if key in one else (other, one)
        parents = [key[:place] for place, letter in enumerate(key) if letter == "."]
        if any(parent in lacks for parent in parents):
            return f"{key}: {values[key]} {'there' if values is one else 'here'} only"
    return None


def _left_nothing(folder: Path) -> bool:
    """Whether the last run there failed, and no run before it was finished."""
    try:
        status = read_json(folder / STATUS)
    except StoreError:
        return False
    failed = isinstance(status, dict) and status.get("state") == "failed"
    return failed and not (folder / SUMMARY).is_file()


def resolved(cfg: DictConfig) -> DictConfig:
    """The config without Hydra's part, resolved as far as `config.yaml` is."""
    contained = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    made = OmegaConf.create(shareable(contained))
    assert isinstance(made, DictConfig)
    return made
