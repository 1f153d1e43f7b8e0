"""LoRA adapters: attached to a backbone, read and set by parameter name, saved as plain PEFT folders.

An adapter Q is all the A_i and B_i of its layers. All of the project calls a parameter by the name under which PEFT
writes it to `adapter_model.safetensors`, e.g. `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elrea.errors import ConfigError, StoreError, TrainingError
from elrea.models.adapter_shape import LARGEST, Lora
from elrea.models.layers import ends, layers_of
from elrea.models.seeds import seed_of
from elrea.store.files import read_json

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT writes before the backbone's own names."""

SHAPE = "r", "lora_alpha", "lora_dropout", "target_modules"

MAX_RANK = 65_536
NOT_PLAIN_LORA = (
    "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save",
    "layers_to_transform", "lora_bias", "exclude_modules", "trainable_token_indices",
)  # fmt: skip
"""Settings of PEFT with which the same tensors would be another adapter."""


def attach(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """Attaches one new, trainable adapter to a backbone and freezes everything else.

    The backbone's layers are wrapped in place; `detach` unwraps them. The adapter is float32 even on a quantised or
    half-precision backbone, since Adam's updates are too small for half precision.

    Args:
        model: The backbone, without an adapter.
        lora: Rank, scale, dropout and layers.
        seed: Of the initial A; B starts at zero, so that the adapter changes nothing at first.

    Returns:
        The model in eval mode.

    Raises:
        TrainingError: The model has an adapter already, no layer of one of the names, or none there that can have an
            adapter (see `elrea.models.layers`).
    """
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise TrainingError("the backbone has an adapter already: detach it first")
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    asked = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = _peft_config(lora, layers_of(model, asked).targets or asked, transposed)
    home = next(model.parameters()).device
    try:
        # PEFT draws A from the global generator; `initialise` draws it again, from the seed. Of several GPUs the others
        # are left alone: to read their generators takes some memory on each.
        cuda = [home] if home.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a mix of Linear and Conv1D, which PEFT handles
            peft_model = get_peft_model(model, config)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"adapter.targets: PEFT cannot adapt this backbone: {reason}"
        ) from error
    initialise(peft_model, seed)
    check_trainable(peft_model)
    return peft_model.eval()


def detach(peft_model: PeftModel) -> PreTrainedModel:
    """Removes every adapter; returns the backbone as it was before `attach`."""
    backbone: PreTrainedModel = peft_model.unload()
    return backbone


def initialise(peft_model: PeftModel, seed: int) -> None:
    """Draws A uniformly from ±1/√fan_in (PEFT's default) and sets B to zero.

    Each matrix has its own generator on the CPU, seeded by (seed, its name), so that the values depend neither on the
    device nor on the other adapted layers.
    """
    for name, parameter in parameters(peft_model).items():
        values = torch.zeros(parameter.shape)
        if ".lora_A." in name:
            bound = 1 / math.sqrt(parameter.shape[1])
            generator = torch.Generator().manual_seed(seed_of(seed, "lora", name))
            values.uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            parameter.copy_(values)


def parameters(peft_model: PeftModel) -> dict[str, nn.Parameter]:
    """The active adapter's parameters by PEFT's saved names, in the model's order."""
    named = {}
    for name, parameter in peft_model.named_parameters():
        match = re.fullmatch(r"(.+\.lora_\w+)\.([^.]+)(\.\w+)?", name)
        if match and match[2] == peft_model.active_adapter:
            named[match[1] + (match[3] or "")] = parameter
    return named


def check_trainable(peft_model: PeftModel) -> None:
    """Raises TrainingError unless exactly the active adapter's parameters are trainable."""
    expected = {id(parameter) for parameter in parameters(peft_model).values()}
    trainable = {id(p) for p in peft_model.parameters() if p.requires_grad}
    if not expected or trainable != expected:
        raise TrainingError(
            f"{len(trainable)} parameters of the model are trainable and its adapter has "
            f"{len(expected)}: only the adapter's must be, so attach it with elrea.models.lora.attach"
        )


def state(peft_model: PeftModel) -> dict[str, Tensor]:
    """A copy of the active adapter on the CPU: name -> A [r, in] or B [out, r]."""
    return copied(parameters(peft_model))


def copied(named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies of parameters on the CPU, by name."""
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in named.items()}


def set_state(peft_model: PeftModel, tensors: Mapping[str, Tensor]) -> None:
    """Overwrites the active adapter in place.

    Raises:
        TrainingError: A name is missing or unknown, or a shape differs.
    """
    overwrite(parameters(peft_model), tensors)


def overwrite(named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Overwrites parameters by name; raises as `set_state`."""
    for name in sorted(named.keys() ^ tensors.keys()):
        where = "not in the given tensors" if name in named else "not in the model"
        raise TrainingError(f"adapter parameter {name} is {where}: rank or targets differ")
    with torch.no_grad():
        for name, parameter in named.items():
            if parameter.shape != tensors[name].shape:
                raise TrainingError(
                    f"adapter parameter {name} is {list(tensors[name].shape)}, "
                    f"the model has {list(parameter.shape)}: rank or backbone differ"
                )
            parameter.copy_(tensors[name])


def save(
    folder: Path,
    tensors: Mapping[str, Tensor],
    lora: Lora,
    base_name: str,
    *,
    transposed: bool = False,
    targets: Sequence[str] | None = None,
) -> None:
    """Writes a folder that `peft.PeftModel.from_pretrained` loads without this project.

    Args:
        folder: Created if missing; files of the same names are replaced.
        tensors: The adapter by name (`state`).
        lora: Its shape. "all-linear" is written as the names of the adapted layers.
        base_name: The backbone's name in `adapter_config.json`.
        transposed: The adapted layers are Conv1D (GPT-2), whose weights are [in, out].
        targets: The names by which PEFT finds the adapted layers, where `lora` says too little (`saved_targets`).
    """
    from safetensors.torch import save_file

    targets = targets or lora.targets
    if isinstance(targets, str):
        targets = sorted({name.rpartition(".lora_")[0].rpartition(".")[2] for name in tensors})
    config = _peft_config(lora, list(targets), transposed)
    config.base_model_name_or_path = base_name
    config.inference_mode = True
    config.target_modules = list(targets)  # PEFT keeps a set, whose order differs between processes
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})


def saved_targets(peft_model: PeftModel, lora: Lora) -> list[str] | None:
    """Full names of the adapted layers, where the names in `lora` select other modules of the backbone too.

    None where the names are enough: the layers' own for "all-linear", else those that were asked for.
    """
    adapted = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in parameters(peft_model)}
    inside = re.compile(r"\.(lora_\w+|base_layer)(\.|$)")
    backbone: nn.Module = peft_model.get_base_model()
    others = {n for n, _ in backbone.named_modules() if n not in adapted and not inside.search(n)}
    own = {name.rpartition(".")[2] for name in adapted}
    names = own if isinstance(lora.targets, str) else lora.targets
    return sorted(adapted) if any(ends(name, names) for name in others) else None


def saved_as(peft_model: PeftModel, lora: Lora) -> dict[str, Any]:
    """What `save` needs to know of the model that an adapter was trained on."""
    config: Any = peft_model.peft_config[peft_model.active_adapter]
    return {
        "transposed": bool(getattr(config, "fan_in_fan_out", False)),
        "targets": saved_targets(peft_model, lora),
    }


def load(folder: Path) -> tuple[dict[str, Tensor], Lora]:
    """Reads a PEFT LoRA folder: the tensors by name, and the shape.

    Raises:
        TrainingError: A file is missing or cannot be read, or the folder holds something else than plain LoRA.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = read_json(folder / CONFIG)
        check_config(config)
        tensors = load_file(folder / WEIGHTS)
        check_tensors(tensors, config["r"])
        r, alpha, dropout, targets = (config[name] for name in SHAPE)
        lora = Lora(r, alpha, dropout, targets, bool(config.get("use_rslora")))
    except (StoreError, ConfigError, OSError, KeyError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{folder} is not a readable LoRA folder: {error}") from error
    return tensors, lora


def check_config(config: Any) -> None:
    """Checks an `adapter_config.json`, which may come from elsewhere.

    Raises:
        ValueError: It is not that of a plain LoRA adapter, or not as PEFT writes it.
    """
    if not isinstance(config, Mapping):
        raise ValueError("its configuration is not a JSON object")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") not in ("none", None):
        raise ValueError("it is not plain LoRA (peft_type, bias)")
    if used := [name for name in NOT_PLAIN_LORA if config.get(name)]:
        raise ValueError(f"it is not plain LoRA ({', '.join(used)})")
    r, alpha, dropout = (config[name] for name in ("r", "lora_alpha", "lora_dropout"))
    if type(r) is not int or not 1 <= r <= MAX_RANK:
        raise ValueError(f"r is {r!r}")
    for name, value in (("lora_alpha", alpha), ("lora_dropout", dropout)):
        if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:
            raise ValueError(f"{name} is {value!r}")
    targets = config["target_modules"]
    if not isinstance(targets, str) and not (
        isinstance(targets, list) and all(isinstance(name, str) for name in targets)
    ):
        raise ValueError("target_modules is not a list of names")


def check_tensors(tensors: Mapping[str, Tensor], r: int) -> None:
    """Checks that the tensors are pairs A [r, in] and B [out, r] of finite numbers.

    Raises:
        ValueError: The first tensor that is not.
    """
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".lora_")
        side = {"A.weight": 0, "B.weight": 1}.get(kind)
        if side is None or f"{layer}.lora_{'BA'[side]}.weight" not in tensors:
            raise ValueError(f"{name} is not one of a pair lora_A, lora_B")
        if tensor.dim() != 2 or tensor.shape[side] != r or not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, for rank {r}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def _peft_config(lora: Lora, targets: list[str] | str, transposed: bool) -> LoraConfig:
    """PEFT's configuration of `lora`; alpha is an integer where possible, as PEFT writes it."""
    from peft import LoraConfig

    alpha: Any = lora.peft_alpha  # PEFT types it int, and scales by any number
    return LoraConfig(
        r=lora.r,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=targets,
        fan_in_fan_out=transposed,
        bias="none",
        task_type="CAUSAL_LM",
    )
