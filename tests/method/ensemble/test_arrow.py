"""Arrow against the same computed token by token from an SVD, and against PEFT's own model of saved adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import ArrowConfig, create_arrow_model
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.joint import Adapter
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.strategies.arrow import Arrow
from elrea.models.adapter_shape import Lora
from elrea.models.lora import save
from tests.method.ensemble.test_layerwise import CROWD, IDS, PLACES
from tests.models.builders import BUILDERS, random_adapter

ONES = torch.ones(len(IDS), 3)


def by_hand(x: Tensor, crowd: list[Adapter], name: str, k: int, temperature: float) -> Tensor:
    """The addition to a layer's output for one token x [in]."""
    updates = [
        lora.scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
        for tensors, lora in crowd
    ]
    near = torch.stack([(torch.linalg.svd(update).Vh[0] @ x).abs() for update in updates])
    kept = near.topk(k).indices
    shares = torch.softmax(near[kept] / temperature, 0)
    return sum(w * updates[int(c)] @ x for w, c in zip(shares, kept, strict=True))


@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (2, 0.3), (9, 1.0)])
def test_every_layer_mixes_the_experts_token_by_token(
    k: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if k == 2:  # tokens in parts of a few
        monkeypatch.setattr("elrea.method.ensemble.strategies.arrow.HELD", 300)
    model, arrow = BUILDERS["llama"](), Arrow(top_k=k, temperature=temperature)
    got = LayerwiseModel.of(model, CROWD, arrow).logits(IDS, PLACES, ONES)
    handles = []
    for name, module in model.named_modules():
        key = f"base_model.model.{name}"
        if f"{key}.lora_A.weight" not in CROWD[0][0]:
            continue

        def add(_m: Any, inputs: tuple[Tensor], output: Tensor, key: str = key) -> Tensor:
            tokens = inputs[0].flatten(0, -2)
            added = [by_hand(x, CROWD, key, min(k, 3), temperature) for x in tokens]
            return output + torch.stack(added).view(output.shape)

        handles.append(module.register_forward_hook(add))
    assert len(handles) == 14
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits.flatten(0, 1)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    alone = LayerwiseModel.of(model, CROWD[:1], Arrow()).logits(IDS, PLACES, ONES[:, :1])
    assert not torch.allclose(got, alone, atol=0.1), "the experts differ"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_is_pefts_model_of_the_saved_adapters(kind: str, tmp_path: Path) -> None:
    """Singular values far apart, where PEFT's 15 steps of a power iteration have converged."""
    lora, crowd, folders = Lora(r=2), [], []
    for seed in range(3):
        tensors, _ = random_adapter(kind, lora, seed)
        tensors = {
            n: t * torch.tensor([[2.0], [0.1]]) if "lora_A" in n else t for n, t in tensors.items()
        }
        crowd.append((tensors, lora))
        folders.append(str(tmp_path / f"expert-{seed}"))
        save(Path(folders[-1]), tensors, lora, "made-up", transposed=kind == "gpt2")
    ours = LayerwiseModel.of(BUILDERS[kind](), crowd, Arrow(top_k=2, temperature=0.5))
    got = ours.logits(IDS, PLACES, ONES)
    config = ArrowConfig(top_k=2, router_temperature=0.5, rng_seed=0)
    theirs = create_arrow_model(BUILDERS[kind](), folders, config).eval()
    with torch.no_grad():
        wanted = theirs(input_ids=IDS).logits.flatten(0, 1)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-3)


def test_prototypes_are_exact_where_singular_values_are_close() -> None:
    """PEFT's own are not: they depend on the random vector that it starts from."""
    from peft.tuners.lora.arrow import ArrowLoraLinearLayer

    draw = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(30, 2, generator=draw))
    a = (torch.tensor([[1.0], [0.98]]) * q.T)[None]
    b = torch.eye(20, 2)[None]
    (found,) = Arrow().gate_of(a, b)  # type: ignore[misc]
    assert abs(float(found @ q[:, 0])) == pytest.approx(1, abs=1e-5)
    config = ArrowConfig(top_k=1, rng_seed=0)
    config.task_adapter_names, config.gks_adapter_names = ["task_0"], []
    near = ArrowLoraLinearLayer(30, config).top_right_singular_vec_from_BA(a[0], b[0])
    assert abs(float(near @ q[:, 0])) < 0.999


def test_members_of_other_shapes_are_refused() -> None:
    model = BUILDERS["llama"]()
    one = random_adapter("llama", Lora(r=2), 1)
    with pytest.raises(
        ConfigError, match="expert 1 has other layers or another rank than expert 0"
    ):
        LayerwiseModel.of(model, [one, random_adapter("llama", Lora(r=3), 1)], Arrow())
    few = random_adapter("llama", Lora(r=2, targets=["q_proj"]), 1)
    with pytest.raises(ConfigError, match=r"expert 1 .*down_proj"):
        LayerwiseModel.of(model, [one, few], Arrow())
    with pytest.raises(ConfigError, match="it has no adapter"):
        LayerwiseModel.of(model, [None, one], Arrow())
    for wrong in ({"top_k": 0}, {"temperature": 0.0}, {"rate": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Arrow(**wrong)
