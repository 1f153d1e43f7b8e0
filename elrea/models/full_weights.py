"""A LoRA adapter merged into its backbone's weights: a plain model folder that transformers loads."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError, ConfigError
from elrea.models.peft_folders import PREFIX

if TYPE_CHECKING:
    from elrea.models.backbone import Pretrained
    from elrea.models.peft_folders import PeftFolder

DTYPES = ("float32", "bfloat16", "float16")


def check_dtype(backbone: Pretrained, dtype: str | None) -> str:
    """The type of the weights to write: the given one, else that of the backbone's configuration.

    Raises:
        ConfigError: An unknown type.
        BackboneError: The backbone's own weights are quantised.
    """
    config = backbone.config()
    if getattr(config, "quantization_config", None):
        raise BackboneError(
            f"{backbone.shown_name}: its weights are quantised, and W + s·B·A would be rounded; give the model that it "
            "was quantised from as --backbone"
        )
    stored = getattr(config, "dtype", None)
    found = dtype or str(stored or "float32").removeprefix("torch.")
    if found not in DTYPES:
        raise ConfigError(f"--dtype {found}: must be one of {', '.join(DTYPES)}")
    return found


def write_merged(place: Path, adapter: PeftFolder, folder: Path, backbone: Pretrained, dtype: str) -> None:  # fmt: skip
    """Writes W + s·B·A for every adapted layer and W for the others, with configuration and tokenizer.

    The sum is computed in float32, and rounded once to `dtype`.

    Args:
        place: Folder to write.
        adapter: The adapter.
        folder: The same as a PEFT folder.
        backbone: Its backbone; it is loaded in float32, without quantisation.
        dtype: Of the written weights.

    Raises:
        BackboneError: The backbone cannot be loaded, or the adapter is for another one.
        ConfigError: The adapter changes a weight that two layers share.
    """
    import torch
    from peft import PeftModel

    from elrea.models.device import Device

    loaded = replace(backbone, dtype="float32", quantise=None).load(Device("cpu"))
    check_layers(loaded.model, adapter)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on a mix of Linear and Conv1D, which PEFT handles
            wrapped: Any = PeftModel.from_pretrained(loaded.model, str(folder))
        model: Any = wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(f"{folder.name}: PEFT cannot merge it into {loaded.name}: {reason}") from error  # fmt: skip
    model.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    model.save_pretrained(place)
    loaded.tokenizer.save_pretrained(place)


def check_layers(model: Any, adapter: PeftFolder) -> None:
    """Refuses an adapter whose layers the model does not have, has in another size, or shares between two uses.

    Raises:
        BackboneError: The adapter is for another backbone.
        ConfigError: The output head is adapted and is the embedding, too.
    """
    modules = dict(model.named_modules())
    embedding = model.get_input_embeddings()
    for layer in adapter.layers:
        weight = getattr(modules.get(layer), "weight", None)
        if weight is None:
            raise BackboneError(
                f"{layer}: the backbone has no such layer; the adapter is for another one"
            )
        a, b = (adapter.tensors[f"{PREFIX}{layer}.lora_{side}.weight"] for side in "AB")
        sizes = [b.shape[0], a.shape[1]]
        if sorted(weight.shape) != sorted(sizes):
            raise BackboneError(
                f"{layer}: is {list(weight.shape)} in the backbone and {sizes} in the adapter, which is for another one"
            )  # fmt: skip
        if weight is getattr(embedding, "weight", None):
            raise ConfigError(
                f"{layer}: shares its weights with the embedding, which a merge would change too; export --as peft"
            )
