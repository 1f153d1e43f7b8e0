"""`backbone.dtype=mixed`: products of linear layers in bfloat16, the rest in float32, against products by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from elrea.errors import BackboneError
from elrea.method.ensemble.joint import JointModel
from elrea.method.features.per_example import PerExampleGradients
from elrea.models import lora as lora_files
from elrea.models import mixed
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.footprint import Footprint
from elrea.models.lora import attach, parameters
from elrea.models.mixed import MixedConv1D, MixedLinear, to_mixed
from tests.models.builders import BUILDERS
from tests.small_models import small_llama

KINDS = ("llama", "gpt2", "gemma2")
IDS = torch.arange(24).view(2, 12) % 19


def half(tensor: Tensor) -> Tensor:
    """Rounded to bfloat16."""
    return tensor.to(torch.bfloat16).float()


def made(kind: str) -> Any:
    model = BUILDERS[kind]().eval().requires_grad_(False)
    to_mixed(model)
    return model


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_and_its_gradient_are_products_of_rounded_numbers(bias: bool) -> None:
    plain = nn.Linear(40, 30, bias=bias).requires_grad_(False)
    model = nn.Sequential(plain)
    model.device, model.get_output_embeddings = torch.device("cpu"), lambda: None  # type: ignore[assignment]
    weight = plain.weight.clone()
    to_mixed(model)  # type: ignore[arg-type]
    x = torch.randn(2, 5, 40, requires_grad=True)
    out = model(x)
    assert out.dtype == torch.float32 and type(plain) is MixedLinear
    exact = half(half(x) @ half(weight).T) + (plain.bias if bias else 0)
    assert torch.allclose(out, exact, rtol=2**-7, atol=1e-6)
    passed = torch.randn_like(out)
    (found,) = torch.autograd.grad(out, x, passed)
    assert torch.allclose(found, half(half(passed) @ half(weight)), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_linear_layers_before_the_head_change(kind: str) -> None:
    before, after = BUILDERS[kind](), made(kind)
    head = after.get_output_embeddings()
    changed = 0
    for (name, old), new in zip(before.named_modules(), after.modules(), strict=True):
        linear = isinstance(old, nn.Linear | Conv1D) and new is not head
        changed += linear
        assert isinstance(new, MixedLinear | MixedConv1D) == linear, name
        for key, value in new.named_parameters(recurse=False):
            rounded = linear and key == "weight"
            assert value.dtype == (torch.bfloat16 if rounded else torch.float32), (name, key)
            assert not value.requires_grad
            assert torch.equal(
                value.float(), half(getattr(old, key)) if rounded else getattr(old, key)
            )
    assert changed >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_logits_err_as_little_as_the_rounding_of_a_layer(kind: str) -> None:
    exact, found = BUILDERS[kind]().eval()(IDS).logits, made(kind)(IDS).logits
    whole = BUILDERS[kind]().eval().to(torch.bfloat16)(IDS).logits.float()
    assert found.dtype == torch.float32
    error, wholly = ((each - exact).norm() / exact.norm() for each in (found, whole))
    assert 0 < error < 2e-2, "rounded, and not more"
    assert error < wholly, "less than a model that is bfloat16 throughout"


def test_a_weight_that_two_modules_share_stays() -> None:
    model = BUILDERS["llama"]()
    first, second = (layer.mlp.up_proj for layer in model.model.layers[:2])
    second.weight = first.weight
    to_mixed(model)
    assert first.weight is second.weight and first.weight.dtype == torch.float32


def test_adapters_gradients_and_members_are_float32_and_agree(tmp_path: Path) -> None:
    """Per-example gradients equal those of one example at a time; all members at once equal PEFT's own pass."""
    backbone = Pretrained(str(small_llama(tmp_path)), dtype="mixed").load(Device("cpu", threads=1))
    shape = Lora(r=2, dropout=0.0)
    model: Any = attach(backbone.model, shape, 0)
    for parameter in parameters(model).values():
        assert parameter.dtype == torch.float32
        parameter.data.normal_(std=0.1)
    mask = torch.ones_like(IDS, dtype=torch.bool)
    gradients = PerExampleGradients(model, "all")
    found = torch.empty(2, gradients.size)
    gradients(IDS, mask, mask, found)
    for row in range(2):
        model.zero_grad()
        one = IDS[row : row + 1]
        (model(one, labels=one).loss).backward()
        wanted = gradients.flat({n: torch.clone(p.grad) for n, p in parameters(model).items()})  # type: ignore[arg-type]
        assert torch.allclose(found[row], wanted, rtol=2e-2, atol=float(2e-2 * wanted.abs().max()))
    with torch.no_grad():
        expected = model(IDS).logits
    adapter = lora_files.state(model)
    lora_files.detach(model)
    joint = JointModel(backbone.model, [None, (adapter, shape)])
    logits = joint.logits(IDS, torch.arange(IDS.numel()))
    assert torch.allclose(logits[1].view_as(expected), expected, rtol=2e-2, atol=2e-2)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)


def test_the_forecast_counts_the_loaded_bytes() -> None:
    model = made("llama")
    footprint = Footprint.of(model.config, Lora(r=2), "mixed", None)
    assert footprint.weights == sum(p.nbytes for p in model.parameters())


def test_refused_beside_quantised_layers(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"dtype=mixed: .*quantise=4bit; leave one"):
        Pretrained(str(tmp_path), dtype="mixed", quantise="4bit").load(Device("cpu"))


def test_a_processor_without_fast_products_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(10**6))
    grows = {torch.float32: 0, torch.bfloat16: 3}
    linear = torch.nn.functional.linear

    def slow(x: Tensor, weight: Tensor) -> Tensor:
        for _ in range(grows[x.dtype]):
            next(clock)
        return linear(x, weight)

    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("torch.nn.functional.linear", slow)
    with caplog.at_level(logging.WARNING):
        mixed._warn_if_slower(torch.device("cpu"))
    assert "4.0 times as long" in caplog.text and "backbone.dtype=float32" in caplog.text
