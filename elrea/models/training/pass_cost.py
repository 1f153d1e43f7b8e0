"""What a pass through a model costs beside its tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel

PER_LAYER = 1e8
"""Weights that a token could meet in the time that a decoder layer takes beside its products, forward and backward, on
a thread of a CPU: about 5 ms for the calls of PyTorch and PEFT, measured on a model of 135 million parameters. A small
model's layer takes less; for it the cost comes out too high, and its batches are hardly ever cut."""


def pass_cost(model: PeftModel) -> float:
    """The cost of a forward and backward pass beside its tokens, in tokens; infinite on other devices than a CPU.

    It follows from the architecture and is not measured, so that a training takes the same passes on every run.
    """
    backbone = model.get_base_model()
    if backbone.device.type != "cpu":
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
    return PER_LAYER * layers / weights if layers and weights else math.inf
