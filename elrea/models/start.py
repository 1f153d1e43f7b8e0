"""Adapters that were made elsewhere, from which the base adapter's training starts (`adapter.start`).

Only plain LoRA is taken: folders whose tensors PEFT would use in another way are refused by the name of the setting.
Neither torch nor PEFT is imported, and no weights are read, before a start is compared with its backbone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.errors import ConfigError, StoreError, TrainingError
from elrea.models.adapter_shape import ALL_LINEAR, Lora
from elrea.models.headers import shapes
from elrea.models.peft_folders import CONFIG, PICKLE, PREFIX, WEIGHTS, not_plain
from elrea.store.files import read_json, sha256

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

TAKEN = ("r", "alpha", "targets", "rslora")
"""Fields of `Lora` that a start decides."""


def started(lora: Lora, typed: Collection[str] = ()) -> Lora:
    """The shape of the adapters of a run that goes on from `lora.start`; without a start, `lora` itself.

    Args:
        lora: As the config has it.
        typed: Keys that were given on the command line, as "adapter.r": they must not contradict the start.

    Raises:
        ConfigError: The folder is no plain LoRA adapter in safetensors, or a typed key contradicts it.
    """
    if lora.start is None:
        return lora
    folder = folder_of(lora.start)
    config = _read(folder)
    _check(folder, config)
    rslora = bool(config.get("use_rslora"))
    found = replace(
        lora, r=config["r"], alpha=float(config["lora_alpha"]), targets=_targets(folder, config), rslora=rslora
    )  # fmt: skip
    for name in TAKEN:
        given, taken = getattr(lora, name), getattr(found, name)
        if isinstance(given, list):
            given = sorted(given)
        if name == "alpha" and given is None:
            given = lora.peft_alpha
        if f"adapter.{name}" in typed and given != taken:
            raise ConfigError(
                f"adapter.{name}={getattr(lora, name)}: contradicts adapter.start, which has {taken}; leave "
                f"adapter.{name} out"
            )
    return found


def folder_of(start: str) -> Path:
    """The folder of a start.

    Raises:
        ConfigError: It is not there, or has no adapter in safetensors.
    """
    folder = Path(os.path.expanduser(start))
    if not folder.is_dir():
        raise ConfigError(
            f"adapter.start={start}: no such folder; give a PEFT folder, with {CONFIG} and {WEIGHTS}"
        )
    if not (folder / CONFIG).is_file():
        if (inner := folder / "base" / CONFIG).is_file():
            hint = f"; is it {inner.parent}?"
        elif (folder / "config.json").is_file():
            hint = ": it is a whole model; give it as backbone.name"
        else:
            hint = "; give a PEFT folder"
        raise ConfigError(f"adapter.start={start}: no {CONFIG} there{hint}")
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            raise ConfigError(
                f"adapter.start={start}: has {PICKLE} only, and pickle is never loaded; load it where you trust it, "
                "and save it again (PEFT's save_pretrained writes safetensors)"
            )
        raise ConfigError(f"adapter.start={start}: no {WEIGHTS} there")
    return folder


def checksum(start: str) -> str:
    """SHA-256 of a start's weights.

    Raises:
        ConfigError: As `folder_of`.
    """
    return sha256(folder_of(start) / WEIGHTS)


def weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of an adapter by name, whatever names its layers have in `adapter_config.json`.

    Args:
        folder: As `folder_of` returns it, or an adapter that a stage made.

    Raises:
        TrainingError: They cannot be read, or are not those of plain LoRA.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from elrea.models.lora import check_tensors

    try:
        tensors = load_file(folder / WEIGHTS)
        check_tensors(tensors, read_json(folder / CONFIG)["r"])
    except (StoreError, OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise TrainingError(f"{folder} is not a readable LoRA folder: {error}") from error
    return tensors


def check_start(lora: Lora, config: PreTrainedConfig) -> None:
    """Compares a start with the backbone, layer by layer, before anything is loaded.

    Args:
        lora: Its shape, as `started` returns it.
        config: Of the backbone.

    Raises:
        ConfigError: A layer is missing on one side, or has another size.
    """
    from elrea.models.footprint import empty_adapter

    assert lora.start is not None
    folder = folder_of(lora.start)
    try:
        found = shapes(folder / WEIGHTS)
        ranks = {shape[0] for name, shape in found.items() if ".lora_A." in name}
        if ranks != {lora.r}:
            raise TrainingError(f"{CONFIG} has r={lora.r}, and the weights have {sorted(ranks)}")
        wanted = empty_adapter(config, lora)
    except (ValueError, TrainingError) as error:
        raise ConfigError(f"adapter.start={lora.start}: {error}") from error
    for name in sorted(found.keys() ^ wanted.keys()):
        side = "the start" if name in found else "the backbone"
        raise ConfigError(
            f"adapter.start={lora.start}: is not for this backbone: only {side} has {_layer(name)}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ConfigError(
                f"adapter.start={lora.start}: is not for this backbone: {_layer(name)} is {list(found[name])}, and "
                f"would have to be {list(shape)}"
            )


def _layer(name: str) -> str:
    return name.removeprefix(PREFIX).removesuffix(".weight")


def _read(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / CONFIG)
    except StoreError as error:
        raise ConfigError(f"adapter.start: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"adapter.start: {folder / CONFIG}: not a JSON object")
    return config


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses everything but plain LoRA, by the name of the setting."""

    if what := not_plain(config):
        raise ConfigError(
            f"adapter.start={folder}: {what}; only plain LoRA can be gone on from, with or without rsLoRA"
        )


def _targets(folder: Path, config: Mapping[str, Any]) -> Any:
    """The adapted layers: the names in the configuration, sorted; for a pattern, the layers' full names."""
    named = config.get("target_modules")
    if named == ALL_LINEAR:
        return ALL_LINEAR
    if isinstance(named, list) and named and all(isinstance(name, str) for name in named):
        return sorted(named)
    if not isinstance(named, str):
        raise ConfigError(f"adapter.start={folder}: names no layers (target_modules is {named!r})")
    try:
        tensors = shapes(folder / WEIGHTS)
    except ValueError as error:
        raise ConfigError(f"adapter.start={folder}: {error}") from error
    found = (re.fullmatch(r"(.+)\.lora_A\.weight", name.removeprefix(PREFIX)) for name in tensors)
    return sorted(match[1] for match in found if match)
