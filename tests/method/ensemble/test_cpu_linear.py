"""Linear layers with the weights on the left give the layers' own results."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from elrea.method.ensemble.cpu_linear import MOST_ROWS, swapped_products


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 7), (5, 1, 7), (MOST_ROWS, 7), (MOST_ROWS + 1, 7), (2, 3, 7), (4, 0, 7)]
)
def test_products_are_the_layers_own(bias: bool, shape: tuple[int, ...]) -> None:
    layer, rows = nn.Linear(7, 11, bias=bias), torch.randn(shape)
    wanted = layer(rows)
    with swapped_products(layer):
        got = layer(rows)
        assert layer.forward.__name__ == "forward" and "forward" in vars(layer)
    assert got.shape == wanted.shape and got.stride() == wanted.stride()
    torch.testing.assert_close(got, wanted)
    assert "forward" not in vars(layer)


def test_gradients_go_through() -> None:
    layer, rows = nn.Linear(7, 11), torch.randn(3, 7, requires_grad=True)
    (wanted,) = torch.autograd.grad(layer(rows).square().sum(), rows)
    with swapped_products(layer):
        (got,) = torch.autograd.grad(layer(rows).square().sum(), rows)
    torch.testing.assert_close(got, wanted)


def test_other_layers_keep_their_own_product() -> None:
    class Own(nn.Linear):
        pass

    half, own, hooked = nn.Linear(3, 3).bfloat16(), Own(3, 3), nn.Linear(3, 3)
    hooked.forward = lambda rows: rows  # type: ignore[method-assign,assignment]
    with (
        pytest.raises(RuntimeError, match="on the way"),
        swapped_products(nn.ModuleList([half, own, hooked])),
    ):
        assert "forward" not in vars(half) and "forward" not in vars(own)
        assert torch.equal(hooked(torch.ones(2, 3)), torch.ones(2, 3))
        raise RuntimeError("on the way")
    assert "forward" in vars(hooked)
