"""What a pass through a model costs beside its tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedConfig

PER_LAYER = 1e8
"""Weights that a token could meet in the time that a decoder layer takes beside its products, forward and backward, on
a thread of a CPU: about 5 ms for the calls of PyTorch and PEFT, measured on a model of 135 million parameters. A small
model's layer takes less; for it the cost comes out too high, and its batches are hardly ever cut."""
READING = 20.0
"""Tokens whose products take as long as a pass takes to read the weights, whatever their number: of products
with 1 to 17 million weights on a thread of a CPU, forward and backward, 17 to 29. `PER_LAYER` includes it."""
UNUSED = "summary", "classifier"
"""Dropout of heads that a language model does not have."""


def pass_cost(model: PeftModel) -> float:
    """The cost of a forward and backward pass beside its tokens, in tokens; infinite on other devices than a CPU.

    Infinite with dropout too: other passes draw other masks, so that the results would not be the same up to rounding.
    It follows from the architecture and is not measured, so that a training takes the same passes on every run.
    """
    backbone: Any = model.get_base_model()
    if backbone.device.type != "cpu" or draws(backbone):
        return math.inf
    tables = {
        id(p)
        for m in (backbone.get_input_embeddings(), backbone.get_output_embeddings())
        if m
        for p in m.parameters()
    }
    weights = sum(
        p.numel() for p in backbone.parameters() if not p.requires_grad and id(p) not in tables
    )
    layers = getattr(backbone.config.get_text_config(), "num_hidden_layers", None)
    return max(PER_LAYER * layers / weights, READING) if layers and weights else math.inf


def draws(model: nn.Module) -> bool:
    """Whether a pass in training draws random numbers (dropout of any kind), which other passes would draw anew."""
    from torch.nn.modules.dropout import _DropoutNd

    if any(isinstance(module, _DropoutNd) and module.p > 0 for module in model.modules()):
        return True
    config: Any = getattr(model, "config", None)
    return config is not None and config_draws(config)


def config_draws(config: PreTrainedConfig) -> bool:
    """Whether a model draws, as far as its configuration tells it: no model is loaded."""
    return any(
        isinstance(value, int | float) and value > 0
        for name, value in _leaves(config.to_dict())
        if "drop" in name and not name.startswith(UNUSED)
    )


def _leaves(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """Names and values of nested settings."""
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        found += _leaves(value) if isinstance(value, dict) else [(str(name), value)]
    return found
