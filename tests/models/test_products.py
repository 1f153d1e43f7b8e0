"""LoRA's products in training against PEFT's own layers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, parameters, set_state
from elrea.models.mixed import to_mixed
from elrea.models.training.products import fast_products
from tests.models.builders import BUILDERS, llama, random_state, train

IDS = torch.tensor([[2, 7, 9, 3, 5, 6], [2, 8, 4, 0, 0, 0]])


def passed(model: PeftModel, fast: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the gradient of a sum over them, in train mode with one seed for dropout."""
    model.train()
    model.zero_grad()
    torch.manual_seed(5)
    with fast_products(model) if fast else nullcontext():
        logits = model(input_ids=IDS).logits
    logits.sin().sum().backward()  # after the block: a step's backward pass may end later
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), found


def agree(model: PeftModel, tolerance: float = 5e-6, least: float = 1e-4) -> None:
    wanted, gradients = passed(model, False)
    got, ours = passed(model, True)
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * wanted.abs().max().item())
    assert ours.keys() == gradients.keys() != set()
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert gradient.abs().max() > least * largest  # large enough to be compared
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=5 * tolerance * largest)


def set_small(model: PeftModel) -> PeftModel:
    """A random adapter of which no attention is sure, so that all gradients are of one size."""
    set_state(model, {name: 0.1 * tensor for name, tensor in random_state(model).items()})
    return model


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("lora", [
    Lora(r=2, dropout=0.0), Lora(r=3, alpha=5.0, dropout=0.4), Lora(r=2, dropout=0.0, rslora=True),
])  # fmt: skip
def test_values_and_gradients_are_pefts(kind: str, lora: Lora) -> None:
    model = attach(BUILDERS[kind](), lora, 0)
    agree(set_small(model))


def test_so_they_are_with_bfloat16_products() -> None:
    model = llama()
    to_mixed(model)
    adapted = attach(model, Lora(r=2, dropout=0.0), 0)
    agree(
        set_small(adapted), 5e-3
    )  # a last digit of float32 may round a bfloat16 number the other way


def test_a_bfloat16_backbone_keeps_its_type() -> None:
    half: Any = llama()
    half.to(torch.bfloat16)
    model = attach(half, Lora(r=2, dropout=0.0), 0)
    set_small(model)
    logits, _ = passed(model, True)
    torch.testing.assert_close(logits, passed(model, False)[0])
    assert logits.dtype == torch.bfloat16


def test_they_are_in_use_and_gone_afterwards() -> None:
    model = attach(llama(), Lora(r=2, dropout=0.0), 0)
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    with pytest.raises(KeyError), fast_products(model):
        assert len(layers) == 14 and all("forward" in vars(layer) for layer in layers)
        raise KeyError
    assert not any("forward" in vars(layer) for layer in layers)


def test_another_kind_of_adapter_is_left_to_peft() -> None:
    torch.manual_seed(0)
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"], use_dora=True))
    with fast_products(model):
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_layers_output_that_is_a_view_is_not_overwritten() -> None:
    """A base layer may return a part of a tensor that it still needs."""

    class Part(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.whole = torch.cat([super().forward(x), x], dim=-1)
            return self.whole[..., : self.out_features]

    model = attach(llama(), Lora(r=2, dropout=0.0), 0)
    set_small(model)
    backbone: Any = model.get_base_model()
    layer = backbone.model.layers[0].mlp.down_proj
    layer.base_layer.__class__ = Part
    agree(model)


def test_training_uses_them(tmp_path, monkeypatch) -> None:
    """The losses are those that PEFT's own layers give."""
    import json

    from elrea.models.training import loop

    def losses(name: str) -> list[float]:
        train(tmp_path / name, lora=Lora(r=2, dropout=0.3))
        return [row["loss"] for row in json.loads((tmp_path / name / "curve.json").read_text())]

    used: list[int] = []
    plain = fast_products

    def counted(model: PeftModel):
        used.append(len(parameters(model)))
        return plain(model)

    monkeypatch.setattr(loop, "fast_products", counted)
    ours = losses("ours")
    monkeypatch.setattr(loop, "fast_products", lambda _model: nullcontext())
    assert used == [28] and ours == pytest.approx(losses("peft"), rel=1e-4)


def test_a_hook_between_the_matrices_still_acts() -> None:
    """As that of steered adapters, which changes A·x."""
    model = set_small(attach(llama(), Lora(r=2, dropout=0.0), 0))
    plain, _ = passed(model, True)
    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _module, _inputs, low: 3 * low)
    agree(model)
    assert not torch.allclose(passed(model, True)[0], plain, atol=1e-3)
