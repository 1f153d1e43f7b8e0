"""PEFT folders from anywhere: read as plain LoRA or refused by name, and written; torch is not imported at first.

An adapter that PEFT computes as W + s·B·A per layer is plain LoRA, whatever its rank, alpha, scaling and layers.
Everything else (DoRA, IA³, trained biases, ...) is another update, which B·A alone does not describe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.errors import ConfigError, StoreError
from elrea.models.adapter_shape import LARGEST, Lora
from elrea.store.files import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
"""Before a layer's name in a PEFT file."""

OTHER_KINDS = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA with biases",
    "modules_to_save": "whole layers that were trained beside the adapter",
    "rank_pattern": "ranks that differ between layers",
    "alpha_pattern": "scales that differ between layers",
    "layers_to_transform": "a choice of layers by number",
    "layers_pattern": "a choice of layers by number",
    "exclude_modules": "a list of layers to leave out",
    "layer_replication": "a backbone with repeated layers",
    "target_parameters": "adapters of parameters outside of linear layers",
    "trainable_token_indices": "trained rows of the embedding",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
"""Settings of PEFT's LoRA with which the same tensors are another adapter, and what they are."""

PER_LAYER = (
    "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern", "exclude_modules",
)  # fmt: skip
"""Those among them with which every layer is still s·B·A, and its tensors tell the rest."""

PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the backbone as it is; others (PiSSA, OLoRA, LoftQ, ...) change it."""


@dataclass(frozen=True)
class PeftFolder:
    """A LoRA adapter with what its folder says beside the tensors.

    Attributes:
        tensors: A [r, in] and B [out, r] of every layer, by PEFT's names.
        lora: Rank, scale and layers.
        backbone: Name or place of the model under it, as the folder has it; empty if it has none.
        revision: The model's revision on the hub, if the folder names one.
        transposed: The adapted layers are Conv1D (GPT-2).
    """

    tensors: Mapping[str, Tensor]
    lora: Lora
    backbone: str = ""
    revision: str | None = None
    transposed: bool = False

    @property
    def layers(self) -> list[str]:
        """The adapted layers, as the backbone names them, sorted."""
        names = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in self.tensors}
        return sorted(names)

    def save(self, folder: Path) -> None:
        """Writes the folder's two files; PEFT loads them."""
        from elrea.models import lora as lora_files

        lora_files.save(
            folder, self.tensors, self.lora, self.backbone, transposed=self.transposed
        )  # fmt: skip
        path = folder / CONFIG
        write_json(path, {**read_json(path), "revision": self.revision})


def is_peft(folder: Path) -> bool:
    """Whether a folder has PEFT's configuration of an adapter."""
    return (folder / CONFIG).is_file()


def not_plain(config: Mapping[str, Any], allowed: Collection[str] = ()) -> str | None:
    """Why an `adapter_config.json` is not that of plain LoRA, with the setting's name; None if it is.

    Args:
        config: Its content.
        allowed: Names in `OTHER_KINDS` that the caller understands.
    """
    if (kind := config.get("peft_type")) != "LORA":
        return f"is of type {kind} (peft_type)"
    if (bias := config.get("bias", "none")) not in ("none", None):
        return f"has trained biases (bias={bias})"
    for name, what in OTHER_KINDS.items():
        if config.get(name) and name not in allowed:
            return f"has {what} ({name})"
    first = config.get("init_lora_weights")
    if not any(
        first is plain or (isinstance(plain, str) and first == plain) for plain in PLAIN_STARTS
    ):
        return f"changes the backbone's own weights (init_lora_weights={first})"
    r, alpha = config.get("r"), config.get("lora_alpha")
    if type(r) is not int or r < 1:
        return f"its rank is {r!r} (r)"
    if type(alpha) not in (int, float) or not 0 < (alpha or 0) <= LARGEST:
        return f"its scale is {alpha!r} (lora_alpha)"
    return None


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration of a folder that holds plain LoRA in safetensors; the tensors are not read.

    Raises:
        ConfigError: The folder is missing or holds something else; what, by name.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give a PEFT folder, with {CONFIG}")
    if not is_peft(folder):
        raise ConfigError(f"{folder}: no {CONFIG} there; give a PEFT folder")
    try:
        config = read_json(folder / CONFIG)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{folder / CONFIG}: not a JSON object")
    if what := not_plain(config, PER_LAYER):
        raise ConfigError(
            f"{folder}: {what}; only plain LoRA, with or without rsLoRA, is W + s·B·A"
        )
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(name) or {}, dict):
            raise ConfigError(f"{folder / CONFIG}: {name} is not a JSON object")
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / PICKLE).is_file()
        raise ConfigError(
            f"{folder}: has {PICKLE} only, and pickle is never loaded; load it where you trust it, and save it again "
            "(PEFT's save_pretrained writes safetensors)" if pickled else f"{folder}: no {WEIGHTS} there"
        )  # fmt: skip
    return config


def read_folder(folder: Path) -> PeftFolder:
    """Reads a folder, whoever made it.

    Ranks and scales that differ between layers are brought to one: B is multiplied by its layer's scale, and smaller
    ranks are padded with zeros, which leaves every ΔW as it is.

    Raises:
        ConfigError: It does not hold plain LoRA in safetensors, or the tensors do not fit its configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = config_of(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
        lora = _shape(config, tensors)
        if config.get("rank_pattern") or config.get("alpha_pattern"):
            tensors, lora = _evened(tensors, config, lora)
        _check(tensors, lora.r)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ConfigError(f"{folder / WEIGHTS}: {error}") from error
    place, revision = config.get("base_model_name_or_path"), config.get("revision")
    return PeftFolder(
        tensors, lora, str(place or ""), str(revision) if revision else None, bool(config.get("fan_in_fan_out"))
    )  # fmt: skip


def _shape(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Lora:
    """The shape; layers that are not selected by names of their own are listed in full."""
    named = config.get("target_modules")
    plain = isinstance(named, list) and named and all(isinstance(name, str) for name in named)
    chosen = any(config.get(name) for name in PER_LAYER)
    layers = sorted({n.removeprefix(PREFIX).rpartition(".lora_")[0] for n in tensors})
    if not layers:
        raise ValueError("it has no tensors")
    targets = sorted(named or ()) if plain and not chosen else layers
    return Lora(
        config["r"], float(config["lora_alpha"]), 0.0, targets, bool(config.get("use_rslora"))
    )


def _evened(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], lora: Lora
) -> tuple[dict[str, Tensor], Lora]:
    """The same updates with one rank and scale 1, where PEFT has patterns of them."""
    from peft.utils.other import get_pattern_key
    from torch.nn.functional import pad

    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    most = max(int(t.shape[0]) for name, t in tensors.items() if ".lora_A." in name)
    found: dict[str, Tensor] = {}
    for one in (name for name in tensors if ".lora_A." in name):
        layer, two = one.removeprefix(PREFIX).rpartition(".lora_")[0], one.replace("_A.", "_B.")
        r = ranks.get(get_pattern_key(list(ranks), layer), lora.r)
        alpha = alphas.get(get_pattern_key(list(alphas), layer), lora.peft_alpha)
        if two not in tensors or tensors[one].shape[0] != r or tensors[two].shape[1] != r:
            raise ValueError(f"{one} is {list(tensors[one].shape)}, for rank {r} (rank_pattern)")
        scale = Lora(r, float(alpha), 0.0, lora.targets, lora.rslora).scale
        found[one] = pad(tensors[one].float(), (0, 0, 0, most - r))
        found[two] = pad(scale * tensors[two].float(), (0, most - r))
    if left := sorted(tensors.keys() - found.keys()):
        raise ValueError(f"{left[0]} is not one of a pair lora_A, lora_B")
    return found, Lora(most, float(most), 0.0, lora.targets)


def _check(tensors: Mapping[str, Tensor], r: int) -> None:
    from elrea.models.lora import check_tensors

    check_tensors(tensors, r)
