"""Cuts an optimiser step into forward passes of similar lengths, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

PASS = 64
"""Tokens that take as long as a further pass does on a CPU, beside its own tokens: 32 with SmolLM2-135M, whose weights
are read once more, 60 with the built-in backbone, whose operations are small."""


def cut(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Passes of at most `most` examples, with the least sum of padded tokens and of `PASS` per pass.

    Args:
        lengths: Tokens of each of the step's examples.
        most: Examples in one pass.

    Returns:
        Indices of the examples of each pass; from short examples to long ones, equal ones in the given order.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    # best[n]: cost of the n shortest examples, and where the last of their passes begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        starts = range(max(0, end - most), end)
        best.append(
            min((best[start][0] + (end - start) * longest + PASS, start) for start in starts)
        )
    passes: list[list[int]] = []
    end = len(order)
    while end:
        start = best[end][1]
        passes.append(order[start:end])
        end = start
    return passes[::-1]


def draws(model: nn.Module) -> bool:
    """Whether a pass in training draws random numbers (dropout of any kind), which other passes would draw anew."""
    from torch.nn.modules.dropout import _DropoutNd

    if any(isinstance(module, _DropoutNd) and module.p > 0 for module in model.modules()):
        return True
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if config is not None else {}
    return any(
        isinstance(value, int | float) and value > 0
        for name, value in _leaves(settings)
        if "drop" in name
    )


def _leaves(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """Names and values of nested settings."""
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        found += _leaves(value) if isinstance(value, dict) else [(str(name), value)]
    return found
