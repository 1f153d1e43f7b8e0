"""Members mixed inside the layers equal one adapter per prompt that is computed in the test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from elrea.data.batches import pad
from elrea.data.prompts import Encoded
from elrea.method.ensemble.gates import read_gates, train_gates
from elrea.method.ensemble.joint import Adapter, JointModel
from elrea.method.ensemble.layerwise import Factors, LayerwiseModel
from elrea.method.ensemble.strategies.moe_merging import MoeMerging
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.method.ensemble.strategies.mole import Mole
from elrea.models.adapter_shape import Lora
from elrea.models.training.settings import Recipe, Training
from tests.method.features.by_hand import prompts
from tests.models.builders import BUILDERS, PAD, random_adapter

LORA = Lora(r=2)
CROWD = [random_adapter("llama", LORA, seed) for seed in (1, 2, 3)]
IDS, _ = pad([prompt.prompt for prompt in prompts(4)], PAD)
PLACES = torch.arange(IDS.numel())
SHARES = torch.tensor([[0.2, 0.5, 0.3], [1, 0, 0], [0, 0, 1], [0.1, 0.1, 0.8]])
DRAW = torch.Generator().manual_seed(5)
FACTORS = Factors(
    torch.randn(3, 2, 5, generator=DRAW),
    torch.randn(3, 7, 2, generator=DRAW),
    SHARES,
    torch.randn(3, 5, generator=DRAW),
)
X = torch.randn(4, 6, 5, generator=DRAW)


def averaged(shares: Tensor) -> Adapter:
    """One adapter whose A and B are the members' averaged."""
    tensors = {
        name: sum(w * member[0][name] for w, member in zip(shares, CROWD, strict=True))
        for name in CROWD[0][0]
    }
    return tensors, LORA


def side_by_side(shares: Tensor) -> Adapter:
    """One adapter of three times the rank whose B·A is Σ λ B A of the members."""
    tensors = {}
    for name in CROWD[0][0]:
        parts = [member[0][name] for member in CROWD]
        if "lora_A" in name:
            tensors[name] = torch.cat(parts, dim=0)
        else:
            tensors[name] = torch.cat([w * b for w, b in zip(shares, parts, strict=True)], dim=1)
    return tensors, Lora(r=6, alpha=LORA.scale * 6)


@pytest.mark.parametrize(
    ("strategy", "one"), [(MoeRouting(), side_by_side), (MoeMerging(), averaged)]
)
def test_each_prompt_has_an_adapter_of_its_own(strategy, one) -> None:
    model = BUILDERS["llama"]()
    got = LayerwiseModel(model, CROWD, strategy.delta).logits(IDS, PLACES, SHARES)
    got = got.view(*IDS.shape, -1)
    for row, shares in enumerate(SHARES):
        wanted = JointModel(model, [one(shares)]).logits(IDS[row : row + 1], PLACES[: IDS.shape[1]])
        torch.testing.assert_close(got[row], wanted[0], rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in model.modules())


def test_routing_and_merging_are_not_the_same() -> None:
    assert not torch.allclose(MoeRouting().delta(X, FACTORS), MoeMerging().delta(X, FACTORS))
    alone = Factors(FACTORS.a, FACTORS.b, torch.eye(3)[[0, 1, 2, 0]])
    torch.testing.assert_close(MoeRouting().delta(X, alone), MoeMerging().delta(X, alone))


def test_a_gate_weighs_the_members_token_by_token() -> None:
    got = Mole().delta(X, FACTORS)
    assert FACTORS.gate is not None
    for row in range(4):
        for token in range(6):
            x = X[row, token]
            shares = torch.softmax(FACTORS.gate @ x, 0)
            wanted = sum(shares[m] * FACTORS.b[m] @ (FACTORS.a[m] @ x) for m in range(3))
            torch.testing.assert_close(got[row, token], wanted)


def encoded(count: int) -> list[Encoded]:
    return [Encoded(p.id, p.prompt, (3 + i % 4, 5)) for i, p in enumerate(prompts(count))]


def trained(folder: Path, examples: list[Encoded], epochs: int, rate: float, size: int) -> Path:
    folder.mkdir()
    model = BUILDERS["llama"]()
    layerwise = LayerwiseModel(model, CROWD, Mole().delta)
    recipe = Recipe(epochs, rate, Training(batch_size=size, warmup=0.0))
    train_gates(
        layerwise, examples, recipe, pad_id=PAD, seed=0, stage="gates", folder=folder,
        trainer={"accelerator": "cpu"},
    )  # fmt: skip
    assert all(p.requires_grad for p in model.parameters()), "the backbone stays frozen"
    assert not any(module._forward_hooks for module in model.modules())
    return folder


def test_the_first_step_of_the_gates_goes_down_the_gradient(tmp_path: Path) -> None:
    """Adam's first step is the rate times the gradient's sign; the gradient, by finite differences."""
    examples = encoded(3)
    gates = read_gates(trained(tmp_path / "one", examples, 1, 1e-3, 3))
    model = BUILDERS["llama"]().double()
    crowd: list[Adapter | None] = list(CROWD)
    layerwise = LayerwiseModel(model, crowd, Mole().delta)
    layerwise.layers = {n: (m, a.double(), b.double()) for n, (m, a, b) in layerwise.layers.items()}
    zeros = {name: torch.zeros_like(gate).double() for name, gate in gates.items()}

    def loss() -> float:
        layerwise.gates = zeros
        total = 0.0
        with torch.no_grad(), layerwise.rows(torch.ones(1, 3)):
            for e in examples:
                ids = torch.tensor([e.prompt + e.response])
                logits = model(input_ids=ids).logits[0, len(e.prompt) - 1 : -1]
                total += float(cross_entropy(logits, torch.tensor(e.response))) / len(examples)
        return total

    for name in (min(gates), max(gates)):
        for m, i in ((0, 0), (2, 3)):
            ends = []
            for step in (1e-4, -1e-4):
                zeros[name][m, i] = step
                ends.append(loss())
            zeros[name][m, i] = 0
            slope = (ends[0] - ends[1]) / 2e-4
            assert abs(slope) > 1e-7
            assert float(gates[name][m, i]) == pytest.approx(
                -1e-3 * (1 if slope > 0 else -1), rel=0.02
            )


def test_gates_learn(tmp_path: Path) -> None:
    from elrea.store.files import read_json

    # Every step sees all examples, so that losses compare; over several seeds the ratio is 0.61.
    folder = trained(tmp_path / "many", encoded(24), 16, 0.1, 24)
    losses = [row["loss"] for row in read_json(folder / "curve.json")]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
