"""A merged adapter equals the dense sum of the updates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.joint import Adapter
from elrea.method.ensemble.weighted_sum import reduced, weighted_sum
from elrea.models.adapter_shape import Lora

LAYERS = {"x.q_proj": (7, 5), "x.up_proj": (3, 9)}  # (in, out)


def adapter(seed: int, lora: Lora, layers: tuple[str, ...] = tuple(LAYERS)) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in layers:
        wide, out = LAYERS[name]
        tensors[f"{name}.lora_A.weight"] = torch.randn(lora.r, wide, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(out, lora.r, generator=generator)
    return tensors, lora


def update(adapter: Adapter, name: str) -> Tensor:
    """(α/r)·B·A of a layer, dense; zeros where the adapter leaves it alone."""
    tensors, lora = adapter
    if f"{name}.lora_A.weight" not in tensors:
        return torch.zeros(LAYERS[name][1], LAYERS[name][0])
    return lora.scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]


MEMBERS = [
    adapter(0, Lora(2, 8.0)),
    adapter(1, Lora(3, 3.0)),
    adapter(2, Lora(1), ("x.up_proj",)),
    adapter(3, Lora(4)),
]
SHARES = [0.2, 0.5, 0.3, 0.0]


def test_the_update_is_the_sum_of_the_updates() -> None:
    found = weighted_sum(MEMBERS, SHARES)
    assert found[1].r == 2 + 3 + 1  # a member of weight 0 takes no rank
    assert found[1].scale == 1
    assert found[1].targets == ["q_proj", "up_proj"]
    for name in LAYERS:
        wanted = sum((s * update(m, name) for m, s in zip(MEMBERS, SHARES, strict=True)))
        torch.testing.assert_close(update(found, name), wanted)


@pytest.mark.parametrize("rank", [1, 2, 4, 6])
def test_a_lower_rank_is_the_nearest(rank: int) -> None:
    exact = weighted_sum(MEMBERS, SHARES)
    found, kept = reduced(exact, rank)
    assert found[1].r == rank and found[1].scale == 1
    norm = lost = 0.0
    for name in LAYERS:
        assert found[0][f"{name}.lora_A.weight"].shape == (rank, LAYERS[name][0])
        assert found[0][f"{name}.lora_B.weight"].shape == (LAYERS[name][1], rank)
        dense = update(exact, name)
        u, s, v = torch.linalg.svd(dense, full_matrices=False)
        nearest = (u[:, :rank] * s[:rank]) @ v[:rank]
        torch.testing.assert_close(update(found, name), nearest, atol=1e-4, rtol=1e-4)
        norm += float(dense.square().sum())
        lost += float((dense - update(found, name)).square().sum())
    assert kept == pytest.approx(1 - lost / norm, abs=1e-5)
    assert (kept > 1 - 1e-9) == (
        rank >= 5
    )  # the sum itself has rank 5 at most in one layer, 3 in the other


def test_ranks_that_do_not_fit() -> None:
    exact = weighted_sum(MEMBERS, SHARES)
    for rank in (0, 7):
        with pytest.raises(ConfigError, match=rf"^rank={rank}: must be 1 to 6"):
            reduced(exact, rank)
