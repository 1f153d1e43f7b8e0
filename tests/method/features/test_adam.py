"""The Adam form against the printed formula in float64, and against torch's own Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from elrea.method.features import adam
from elrea.method.features.adam import AdamState, adam_direction
from elrea.models.training.moments import Moments
from tests.method.features import by_hand

SIZE = 50


def moments(step: int) -> Moments:
    generator = torch.Generator().manual_seed(step)
    m = torch.randn(SIZE, generator=generator) * 0.01
    v = torch.rand(SIZE, generator=generator) * 1e-3
    return Moments({"a": m}, {"a": v}, step, 0.003, (0.8, 0.95), 1e-4)


def state(of: Moments) -> AdamState:
    m, v = of.exp_avg["a"], of.exp_avg_sq["a"]
    return AdamState(m, v, of.step, of.learning_rate, *of.betas, of.eps)


@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("step", [0, 1, 7, 2000])
def test_equals_the_printed_formula(step: int, momentum: bool) -> None:
    g = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(99)) * 0.1
    wanted = by_hand.adam(g.double().numpy(), moments(step), momentum)
    got = adam_direction(g.clone(), state(moments(step)), momentum)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=2e-4, atol=1e-7)


def test_equals_numbers_worked_out_on_paper() -> None:
    """m=0.1, v=0.04, g=0.2, β=(0.5, 0.5), one step taken, so t=2 and both corrections are 0.75."""
    one = AdamState(torch.tensor([0.1]), torch.tensor([0.04]), 1, 0.3, 0.5, 0.5, 0.01)
    root = (0.04 / 0.75) ** 0.5
    both = adam_direction(torch.tensor([[0.2]]), one)
    alone = adam_direction(torch.tensor([[0.2]]), one, momentum=False)
    assert float(both) == pytest.approx(0.3 * (0.15 / 0.75) / (root + 0.01), rel=1e-5)
    assert float(alone) == pytest.approx(0.3 * (0.1 / 0.75) / (root + 0.01), rel=1e-5)


def test_is_the_step_that_torch_would_take() -> None:
    parameter = torch.nn.Parameter(torch.zeros(SIZE))
    optimizer = torch.optim.Adam([parameter], lr=0.01, betas=(0.8, 0.95), eps=1e-4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        parameter.grad = torch.randn(SIZE, generator=generator)
        optimizer.step()
    held = optimizer.state[parameter]
    now = AdamState(held["exp_avg"].clone(), held["exp_avg_sq"].clone(), 3, 0.01, 0.8, 0.95, 1e-4)
    before, g = parameter.detach().clone(), torch.randn(SIZE, generator=generator)
    direction = adam_direction(g[None].clone(), now)[0]
    parameter.grad = g
    optimizer.step()
    torch.testing.assert_close(before - parameter.detach(), direction, rtol=1e-4, atol=1e-7)


def test_rows_and_the_state_do_not_touch_each_other() -> None:
    of = moments(5)
    now = state(of)
    g = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(1))
    together = adam_direction(g.clone(), now)
    again = torch.cat([adam_direction(row[None].clone(), now) for row in g])
    assert torch.equal(together, again)
    assert torch.equal(now.m, moments(5).exp_avg["a"])
    assert torch.equal(now.v, moments(5).exp_avg_sq["a"])


@pytest.mark.parametrize(("tile", "wide"), [(21, 7), (7, 7), (1 << 16, 1 << 13)])
def test_tiles_and_columns_join_without_a_seam(
    tile: int, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(2)) * 0.1
    wanted = by_hand.adam(g.double().numpy(), moments(7), True)
    monkeypatch.setattr(adam, "TILE", tile)
    monkeypatch.setattr(adam, "WIDE", wide)
    got = adam_direction(g.clone(), state(moments(7)))
    np.testing.assert_allclose(got.numpy(), wanted, rtol=2e-4, atol=1e-7)


class _Largest(TorchDispatchMode):
    """Notes the most entries of a tensor that an operation returns and that is none of its arguments."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        fresh = isinstance(out, torch.Tensor) and not func.is_view and "_." not in str(func)
        if fresh:
            self.entries = max(self.entries, out.numel())
        return out


def test_no_device_gets_a_second_buffer_of_all_gradients() -> None:
    """32 prompts of an adapter with 78 million parameters: one more buffer would be 9.3 GiB."""
    size = 78_000_000
    gradients, m, v = (
        torch.empty(*shape, device="meta") for shape in ((32, size), (size,), (size,))
    )
    with _Largest() as largest:
        adam_direction(gradients, AdamState(m, v, 3, 0.01, 0.9, 0.999, 1e-8))
    assert 0 < largest.entries <= adam.LARGE_TILE
