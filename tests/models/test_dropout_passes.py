"""With dropout a step is not cut into other passes: they would draw other masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config

from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach
from elrea.models.training import batches, loop
from elrea.models.training.pass_cost import config_draws, draws, pass_cost
from tests.models.builders import gpt2, llama, train


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_dropout_of_the_adapter_draws(dropout: float) -> None:
    model = attach(llama(), Lora(r=2, dropout=dropout), 0)
    assert draws(model) == math.isinf(pass_cost(model)) == (dropout > 0)


def test_the_backbones_own_dropout_draws() -> None:
    attention: Any = llama()
    attention.config.attention_dropout = 0.1  # no module has it: the attention calls the function
    assert draws(attention) and not draws(llama())
    assert config_draws(attention.config) and not config_draws(llama().config)
    hidden: Any = gpt2()  # its configuration has a dropout of a head for classification, too
    assert not draws(hidden) and not config_draws(hidden.config)
    assert config_draws(GPT2Config())
    hidden.transformer.h[0].mlp.dropout.p = 0.1
    assert draws(hidden)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_passes_stay_as_they_were(dropout: float, tmp_path: Path, monkeypatch) -> None:
    """Ten examples of 5 to 12 tokens in steps of 4: cheap passes would cut them."""
    costs: list[float] = []

    def steps(*given: Any, **more: Any) -> Any:
        costs.append(more["pass_cost"])
        return batches.steps(*given, **more)

    monkeypatch.setattr(loop, "steps", steps)
    train(tmp_path, lora=Lora(r=2, dropout=dropout), epochs=1)
    assert [math.isinf(cost) for cost in costs] == [dropout > 0]
