"""Merges several LoRA adapters into one, Σ_m λ_m·ΔW_m: exactly, or with the nearest update of a lower rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.models.adapter_shape import Lora

if TYPE_CHECKING:
    from elrea.method.ensemble.joint import Adapter


def weighted_sum(adapters: Sequence[Adapter], shares: Sequence[float]) -> Adapter:
    """The adapter whose update of every layer is Σ_m λ_m·(α_m/r_m)·B_m A_m.

    The factors are concatenated: A = [A_1; A_2; ...], B = [λ_1·(α_1/r_1)·B_1, λ_2·(α_2/r_2)·B_2, ...], so that B·A is
    the sum, with rank Σ_m r_m and scale 1. Members of share 0 are left out; for a layer that a member does not adapt,
    its factors are zeros.

    Args:
        adapters: Tensors by their PEFT names, A [r, in] and B [out, r], and the adapters' settings.
        shares: λ_m of each adapter, not all 0.
    """
    used = [
        (tensors, lora, share)
        for (tensors, lora), share in zip(adapters, shares, strict=True)
        if share
    ]
    found: dict[str, Tensor] = {}
    for name in sorted({name.rsplit(".", 2)[0] for tensors, _, _ in used for name in tensors}):
        one, two = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        first = next(tensors for tensors, _, _ in used if one in tensors)
        inputs, outputs = first[one].shape[1], first[two].shape[0]
        rows, columns = [], []
        for tensors, lora, share in used:
            adapted = one in tensors
            rows.append(tensors[one].double() if adapted else first[one].new_zeros(lora.r, inputs))
            b = tensors[two].double() if adapted else first[two].new_zeros(outputs, lora.r)
            columns.append(share * lora.scale * b)
        found[one], found[two] = torch.cat(rows).float(), torch.cat(columns, dim=1).float()
    return found, _unscaled(sum(lora.r for _, lora, _ in used), found)


def reduced(adapter: Adapter, rank: int) -> tuple[Adapter, float]:
    """The adapter of a lower rank with the nearest update of every layer (Eckart and Young).

    With B = Q_B R_B and Aᵀ = Q_A R_A, the singular values of B·A are those of the small R_B R_Aᵀ = U S Vᵀ; the
    first `rank` make B' = Q_B U √S and A' = √S Vᵀ Q_Aᵀ.

    Args:
        adapter: An adapter of scale 1, as `weighted_sum` returns it.
        rank: R, at most the adapter's rank.

    Returns:
        The adapter, and the share of the updates' squared norm that it keeps: Σ_{i≤R} S_i² / Σ_i S_i² over all layers.

    Raises:
        ConfigError: The rank is below 1, or above the adapter's rank.
    """
    tensors, lora = adapter
    if not 1 <= rank <= lora.r:
        raise ConfigError(f"rank={rank}: must be 1 to {lora.r}, the rank of the exact sum")
    found: dict[str, Tensor] = {}
    kept = whole = 0.0
    for one in (name for name in tensors if ".lora_A." in name):
        two = one.replace(".lora_A.", ".lora_B.")
        q_b, r_b = torch.linalg.qr(tensors[two].double())
        q_a, r_a = torch.linalg.qr(tensors[one].double().T)
        u, s, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        kept, whole = kept + float(s[:rank].square().sum()), whole + float(s.square().sum())
        root = s[:rank].sqrt()
        a, b = root[:, None] * (v[:rank] @ q_a.T), (q_b @ u[:, :rank]) * root
        missing = rank - len(root)  # a layer may have fewer dimensions than the rank
        found[one] = torch.nn.functional.pad(a, (0, 0, 0, missing)).float()
        found[two] = torch.nn.functional.pad(b, (0, missing)).float()
    return (found, _unscaled(rank, found)), kept / whole if whole else 1.0


def _unscaled(rank: int, tensors: dict[str, Tensor]) -> Lora:
    """Settings with α = r, so that B·A is the update."""
    targets = sorted({name.rpartition(".lora_")[0].rpartition(".")[2] for name in tensors})
    return Lora(rank, float(rank), 0.0, targets)
