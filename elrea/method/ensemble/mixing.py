"""Mixes the members' logits by their weights (5.10)."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(logits: Tensor, weights: Tensor) -> Tensor:
    """w_base·logits_base + Σ_c w_c·logits_c (5.10). The weights need not sum to 1.

    Args:
        logits: Logits of every member [members, b, ..., vocabulary].
        weights: Weights of the members for each row [b, members].

    Returns:
        [b, ..., vocabulary].
    """
    return torch.einsum("mb...,bm->b...", logits, weights.to(logits.dtype))
