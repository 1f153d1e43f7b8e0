"""Which layers of a backbone can take an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from elrea.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_targets(model: PreTrainedModel, targets: str | Sequence[str]) -> None:
    """Refuses a name that is no linear layer, or the output's; PEFT passes over one beside others that fit.

    Args:
        model: The backbone.
        targets: Ends of layers' names; a string is PEFT's own to read.

    Raises:
        TrainingError: The first name that fits nothing.
    """
    names = [f".{name}" for name in _layers(model)]
    for target in [] if isinstance(targets, str) else targets:
        if not any(name.endswith(f".{target}") for name in names):
            raise no_such_layer(model, target)


def no_such_layer(model: PreTrainedModel, target: str) -> TrainingError:
    """The error that says which layers there are."""
    names = ", ".join(sorted({name.rpartition(".")[2] for name in _layers(model)}))
    return TrainingError(
        f"adapter.targets: {target!r} is no layer of this backbone that takes an adapter; it has "
        f"{names or 'no linear layers'}"
    )


def _layers(model: PreTrainedModel) -> list[str]:
    """Linear layers other than the output's."""
    from transformers.pytorch_utils import Conv1D

    head, kinds = model.get_output_embeddings(), (nn.Linear, Conv1D)
    return [n for n, m in model.named_modules() if isinstance(m, kinds) and m is not head]
