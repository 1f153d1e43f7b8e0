"""The direction in which Adam would move for one example's gradient (5.6, 5.7)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TILE = 1 << 16
"""Entries that are worked on at once: their five operations then find them in the processor's cache."""


@dataclass(frozen=True)
class AdamState:
    """The optimiser's state at an epoch's end, flat in the gradient's order.

    Attributes:
        m: First moments [|θ|].
        v: Second moments [|θ|].
        step: Optimiser steps taken.
        learning_rate: η_e, the epoch's mean learning rate (with linear decay the last step's is 0).
        beta1, beta2, eps: Adam's constants.
    """

    m: Tensor
    v: Tensor
    step: int
    learning_rate: float
    beta1: float
    beta2: float
    eps: float


def adam_direction(
    gradients: Tensor, state: AdamState, momentum: bool = True, first: int = 0
) -> Tensor:
    """g_Adam = η m' / (√v' + ε), with m and v updated by the example and t = steps taken + 1.

    Args:
        gradients: g [b, |θ|], or some columns of it [b, w].
        state: Adam's state at the checkpoint.
        momentum: Whether m' holds the shared term β1·m, which pushes all features together.
        first: The first of those columns.

    Returns:
        [b, w]: `gradients`, written over.
    """
    t = state.step + 1
    # η, the bias corrections and β go into what all examples share: m' = m + a g, v' = v + b g².
    a = state.learning_rate * (1 - state.beta1) / (1 - state.beta1**t)
    b = (1 - state.beta2) / (1 - state.beta2**t)
    width = gradients.shape[1]
    columns = slice(first, first + width)
    m = state.m[columns] * (state.learning_rate * state.beta1 / (1 - state.beta1**t))
    v = state.v[columns] * (state.beta2 / (1 - state.beta2**t))
    on_cpu = gradients.device.type == "cpu"
    wide = min(width, 1 << 13) if on_cpu else width
    tall = max(1, TILE // max(1, wide)) if on_cpu else max(1, len(gradients))
    for start in range(0, width, wide):
        part = slice(start, start + wide)
        for tile in gradients[:, part].split(tall):
            root = v[part].addcmul(tile, tile, value=b).sqrt_().add_(state.eps)
            if momentum:
                tile.mul_(a).add_(m[part]).div_(root)
            else:
                tile.mul_(a).div_(root)
    return gradients
