"""The direction in which Adam would move for one example's gradient (5.6, 5.7)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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


def adam_direction(gradients: Tensor, state: AdamState, momentum: bool = True) -> Tensor:
    """g_Adam = η m' / (√v' + ε), with m and v updated by the example and t = steps taken + 1.

    Args:
        gradients: g [b, |θ|].
        state: Adam's state at the checkpoint.
        momentum: Whether m' holds the shared term β1·m, which pushes all features together.

    Returns:
        [b, |θ|], written over `gradients`' own memory where that is possible.
    """
    t = state.step + 1
    second = gradients.square().mul_(1 - state.beta2).add_(state.v, alpha=state.beta2)
    second.div_(1 - state.beta2**t).sqrt_().add_(state.eps)
    first = gradients.mul_(1 - state.beta1)
    if momentum:
        first.add_(state.m, alpha=state.beta1)
    return first.div_(1 - state.beta1**t).div_(second).mul_(state.learning_rate)
