"""Hidden states as features, and as the distilled router's inputs, equal those of transformers, pooled by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elrea.data.prompts import Encoded
from elrea.errors import ConfigError
from elrea.method.features.gradient import extract
from elrea.method.features.states import Layer, Pooling, PromptStates, States
from elrea.method.routing.distilled import Distilled
from elrea.models import lora as lora_files
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, set_state
from tests.method.features import by_hand
from tests.models.builders import BUILDERS, PAD, random_adapter

LORA = Lora(r=2)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(("layer", "depth"), [("last", 2), ("early", 1), (1, 1)])
@pytest.mark.parametrize("pooling", ["mean", "last", "both"])
def test_the_states_are_those_of_the_base_adapters_pass(
    kind: str, layer: Layer, depth: int, pooling: Pooling, tmp_path: Path
) -> None:
    tensors = random_adapter(kind, LORA, 1)[0]
    lora_files.save(tmp_path, tensors, LORA, kind, transposed=kind == "gpt2")
    prompts = [*by_hand.prompts(5), Encoded("none", (), ())]
    model = attach(BUILDERS[kind](), LORA, 0)
    states = PromptStates(layer, pooling, batch_size=2)
    ran: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    got = extract(model, [tmp_path / "no such folder", tmp_path], prompts, states, pad_id=PAD)
    whole = attach(BUILDERS[kind](), LORA, 0)
    set_state(whole, tensors)
    for row, prompt in zip(got[:-1], prompts[:-1], strict=True):
        ids = torch.tensor([prompt.prompt])
        hidden = whole(input_ids=ids, output_hidden_states=True).hidden_states[depth][0]
        parts = {"mean": [hidden.mean(0)], "last": [hidden[-1]]}
        wanted = torch.cat(parts.get(pooling) or [*parts["mean"], *parts["last"]])
        torch.testing.assert_close(row, wanted, rtol=1e-4, atol=1e-5)
    assert not got[-1].any()
    deep = {"llama": "layers", "gpt2": "h"}[kind]
    assert any(f".{deep}.1." in name for name in ran) == (depth == 2), "layers after those read"


def test_as_features_they_are_means_of_length_one(tmp_path: Path) -> None:
    tensors = random_adapter("llama", LORA, 1)[0]
    lora_files.save(tmp_path, tensors, LORA, "llama", transposed=False)
    prompts = by_hand.prompts(4)
    model = attach(BUILDERS["llama"](), LORA, 0)
    got = extract(model, [tmp_path], prompts, States(layer=1), pad_id=PAD)
    whole = attach(BUILDERS["llama"](), LORA, 0)
    set_state(whole, tensors)
    for row, prompt in zip(got, prompts, strict=True):
        ids = torch.tensor([prompt.prompt])
        mean = whole(input_ids=ids, output_hidden_states=True).hidden_states[1][0].mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"^features\.layer=3: the backbone has 2 layers"):
        States(layer=3).fits(model)


def test_a_layer_that_is_not_there() -> None:
    model = attach(BUILDERS["llama"](), LORA, 0)
    Distilled(layer=2).states.fits(model)
    for layer in (0, 3):
        with pytest.raises(ConfigError, match=f"^routing.layer={layer}: the backbone has 2 layers"):
            Distilled(layer=layer).states.fits(model)
