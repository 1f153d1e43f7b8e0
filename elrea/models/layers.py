"""Which layers of a backbone an adapter has, and what is left out and why.

An adapter is on linear layers that text passes through. Left out are, whatever is asked for: the weights of routed
experts, the towers for pictures and sound of a model that also reads text, and layers that PEFT refuses or would read
back as other ones. "all-linear" leaves out a mixture's routers too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from elrea.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names under which configurations have the number of routed experts."""
ROUTERS = ("router", "gate")
"""Names of a mixture's routers."""
EXPERTS = "weights of routed experts"
TOWER = "text does not pass through it"
ROUTER = "router of the experts"
TAKEN = "PEFT would put the fused experts in its place when it reads the adapter"


@dataclass(frozen=True)
class Layers:
    """The layers of one backbone.

    Attributes:
        adapted: Full names of the layers that get an adapter, in the model's order.
        targets: The shortest names by which PEFT finds these layers and no others, sorted; None where those that were
            asked for do.
        left_out: Reason by full name, of linear layers and of the experts' fused weights.
    """

    adapted: tuple[str, ...]
    targets: list[str] | None
    left_out: Mapping[str, str]

    def notes(self) -> list[str]:
        """What is left out, a line for each reason: "not adapted: down_proj, gate_up_proj (weights of ...)"."""
        return [
            f"not adapted: {short(names)} ({reason})"
            for reason, names in by_reason(self.left_out).items()
        ]


def short(names: Iterable[str]) -> str:
    """The last parts of full names, each once: "k_proj, q_proj"."""
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of each reason; of what text does not pass through, the towers' alone."""
    found: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        found.setdefault(reason, []).append(_tower(name) if reason == TOWER else name)
    return found


def layers_of(model: PreTrainedModel, asked: str | Sequence[str]) -> Layers:
    """The layers that an adapter is put on.

    Args:
        model: The backbone, without an adapter.
        asked: Ends of layers' names, or "all-linear".

    Raises:
        TrainingError: A name is no layer's, or every layer of that name is left out; which layers there are.
    """
    linear = _linear(model)
    never = _never(model, linear)
    left_out = dict(never)
    if isinstance(asked, str):
        left_out |= {name: ROUTER for name in _routers(model, linear) if name not in never}
        adapted = tuple(name for name in linear if name not in left_out)
    else:
        adapted = tuple(dict.fromkeys(_named(model, linear, never, asked)))
        left_out = {n: reason for n, reason in never.items() if ends(n, asked)}
    if not adapted:
        raise no_such_layer(model, str(asked))
    fused = dict.fromkeys(_fused(model), EXPERTS)
    left_out |= fused
    # PEFT takes "all-linear" for the experts too, where earlier versions of the model had them as linear layers.
    as_asked = isinstance(asked, str) and len(adapted) == len(linear) and not fused
    return Layers(adapted, None if as_asked else _targets(model, adapted, asked), left_out)


def _named(
    model: PreTrainedModel, linear: Sequence[str], never: Mapping[str, str], asked: Sequence[str]
) -> list[str]:
    """The layers of the asked names, in the model's order."""
    for target in asked:
        found = [name for name in linear if ends(name, [target])]
        if found and all(name in never for name in found):
            others = short(n for n in linear if n not in never) or "no other layer"
            raise TrainingError(
                f"adapter.targets: {target!r} cannot have an adapter on {_kind(model)}: {never[found[0]]}; it can be "
                f"on {others}"
            )
        if not found:
            raise no_such_layer(model, target)
    return [name for name in linear if ends(name, asked) and name not in never]


def no_such_layer(model: PreTrainedModel, target: str) -> TrainingError:
    """The error for an unknown layer; it lists the layers that exist."""
    linear = _linear(model)
    never = _never(model, linear)
    names = short(name for name in linear if name not in never)
    experts = [name for name in _fused(model) if ends(name, [target])]
    reason = (
        f"holds the {EXPERTS} of {_kind(model)}, which get no adapter"
        if experts
        else "is no layer of this backbone that can have an adapter"
    )
    return TrainingError(
        f"adapter.targets: {target!r} {reason}; it has {names or 'no linear layers'}"
    )


def ends(name: str, targets: Iterable[str]) -> bool:
    """Whether PEFT would count a module of this full name among the targets."""
    return any(f".{name}".endswith(f".{target}") for target in targets)


def _linear(model: PreTrainedModel) -> list[str]:
    """Full names of the linear layers except the output head."""
    from transformers.pytorch_utils import Conv1D

    head, kinds = model.get_output_embeddings(), (nn.Linear, Conv1D)
    return [n for n, m in model.named_modules() if isinstance(m, kinds) and m is not head]


def _never(model: PreTrainedModel, linear: Sequence[str]) -> dict[str, str]:
    """The linear layers that get no adapter, whatever is asked for, with the reason."""
    reasons: dict[str, str] = {}
    inside = _text(model)
    experts = _experts(model) > 0
    refused = {leaf: _refused(model, leaf) for leaf in {n.rpartition(".")[2] for n in linear}}
    for name in linear:
        parent, _, leaf = name.rpartition(".")
        if inside is not None and not name.startswith(inside):
            reasons[name] = TOWER
        elif experts and "experts" in parent.split(".") and not _is_router(model, name):
            reasons[name] = EXPERTS
        elif refused[leaf]:
            reasons[name] = str(refused[leaf])
    return reasons


def _text(model: PreTrainedModel) -> str | None:
    """Where the text's layers are in a model that reads something else too: the start of their names; else None."""
    config: Any = model.config
    if config.get_text_config() is config:
        return None
    decoder = model.get_decoder()
    names = (name for name, module in model.named_modules() if name and module is decoder)
    found = next(names, None)
    return f"{found}." if found else None


def _tower(name: str) -> str:
    """The part of a layer's name that names its tower: what stands after the "model" that holds everything."""
    parts = name.split(".")
    return parts[1] if parts[0] == "model" and len(parts) > 1 else parts[0]


def _experts(model: PreTrainedModel) -> int:
    """Number of routed experts of each layer; 0 for a model without."""
    text: Any = model.config.get_text_config()
    found = (getattr(text, name, None) for name in COUNTS)
    counts = [count for count in found if type(count) is int]
    nested = getattr(getattr(text, "ffn_config", None), "moe_num_experts", None)
    return max([*counts, nested or 0])


def _fused(model: PreTrainedModel) -> list[str]:
    """Names of the parameters that hold the weights of all experts of a layer."""
    count = _experts(model)
    if not count:
        return []
    linear = {f"{name}.weight" for name in _linear(model)}
    owners = dict(model.named_modules())
    found = []
    for name, parameter in model.named_parameters():
        parent, _, leaf = name.rpartition(".")
        stacked = parameter.dim() == 3 and parameter.shape[0] == count
        inside = "Expert" in type(owners[parent]).__name__ and parameter.dim() > 1
        if (stacked or inside) and name not in linear and "bias" not in leaf:
            found.append(name)
    return found


def _routers(model: PreTrainedModel, linear: Sequence[str]) -> list[str]:
    return [name for name in linear if _is_router(model, name)] if _experts(model) else []


def _is_router(model: PreTrainedModel, name: str) -> bool:
    """Whether a linear layer chooses among experts: it is called so, or is inside of what is."""
    return any(part in ROUTERS for part in name.split(".")[-2:])


def _refused(model: PreTrainedModel, leaf: str) -> str | None:
    """Why PEFT does not adapt layers of this name, or would take them for others; None if it adapts them."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    config = LoraConfig(target_modules=[leaf])
    check: Any = getattr(LoraModel, "_check_target_module_compatiblity", None)
    try:
        if check is not None:
            check(None, config, model, leaf)
    except ValueError as error:
        return "PEFT: " + " ".join(str(error).split("] ", 1)[-1].split()).partition(". ")[0]
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # a version that takes every name as it is
        return None
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # "w1" alone, which is fused with "w3"
        return TAKEN
    return None if set(config.target_modules or ()) == {leaf} else TAKEN


def _targets(
    model: PreTrainedModel, adapted: Sequence[str], asked: str | Sequence[str]
) -> list[str] | None:
    """The names for PEFT: the layers' own, or their full ones where others are called the same.

    None where what was asked for selects these layers and no others.
    """
    chosen = set(adapted)
    others = [name for name, _ in model.named_modules() if name not in chosen]
    own = sorted({name.rpartition(".")[2] for name in adapted})
    names = own if isinstance(asked, str) else list(asked)
    if any(ends(name, names) for name in others):
        return list(adapted)
    return names if isinstance(asked, str) else None


def _kind(model: PreTrainedModel) -> str:
    """The architecture, as an error names it."""
    return f"{type(model).__name__} (model_type {model.config.model_type})"
