"""Adam's update direction for a single example's gradient (5.6, 5.7)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TILE, WIDE = 1 << 16, 1 << 13
"""Entries that a CPU computes at once, and columns of them: all operations on them stay in its cache."""
LARGE_TILE = 1 << 24
"""Entries that other devices compute at once: 64 MiB, where a second buffer of all gradients could be gigabytes."""


@dataclass(frozen=True)
class AdamState:
    """Adam's state at the end of an epoch, flattened in the order of the gradient.

    Attributes:
        m: First moments [|θ|].
        v: Second moments [|θ|].
        step: Optimiser steps taken.
        learning_rate: η_e, the mean over the epoch (the last step's is 0 with linear decay).
        beta1, beta2, eps: Adam's constants.
    """

    m: Tensor
    v: Tensor
    step: int
    learning_rate: float
    beta1: float
    beta2: float
    eps: float


def adam_direction(gradients: Tensor, state: AdamState, momentum: bool = True) -> Tensor:
    """g_Adam = η m' / (√v' + ε), with the bias-corrected moments m', v' after a step t + 1 on this example (5.6, 5.7).

    Args:
        gradients: g [b, |θ|]; written over.
        state: Adam's state at the checkpoint.
        momentum: Keep β1·m in m'. All examples share this term, which makes their features more alike.

    Returns:
        `gradients`, which holds g_Adam [b, |θ|] now.
    """
    t = state.step + 1
    # η, bias corrections and β are multiplied into what all examples share: m' = m + a g, v' = v + b g².
    a = state.learning_rate * (1 - state.beta1) / (1 - state.beta1**t)
    b = (1 - state.beta2) / (1 - state.beta2**t)
    m_factor = state.learning_rate * state.beta1 / (1 - state.beta1**t)
    v_factor = state.beta2 / (1 - state.beta2**t)
    width = gradients.shape[1]
    size, most = (TILE, WIDE) if gradients.device.type == "cpu" else (LARGE_TILE, LARGE_TILE)
    wide = max(1, min(width, most))
    tall = max(1, size // wide)
    for start in range(0, width, wide):
        part = slice(start, start + wide)
        m, v = state.m[part] * m_factor, state.v[part] * v_factor
        for tile in gradients[:, part].split(tall):
            root = v.addcmul(tile, tile, value=b).sqrt_().add_(state.eps)
            if momentum:
                tile.mul_(a).add_(m).div_(root)
            else:
                tile.mul_(a).div_(root)
    return gradients
