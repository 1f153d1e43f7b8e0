"""One plain LoRA adapter from several, Σ_m w_m·ΔW_m: of an ensemble's members, or of PEFT folders from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elrea.errors import ConfigError
from elrea.method.ensemble.weighted_sum import reduced, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.models.adapter_shape import Lora
    from elrea.models.peft_folders import PeftFolder


@dataclass(frozen=True)
class Merged:
    """A weighted sum of adapters.

    Attributes:
        adapter: The sum, at scale 1.
        exact: Rank of the exact sum, the ranks' sum over adapters of a weight other than 0.
        kept: Share of the sum's squared norm that a lower rank keeps; None if it is exact.
        averaged: ‖Σw·B̄Ā - ΔW‖ / ‖ΔW‖, where Ā = Σ λ_m A_m and B̄ = Σ λ_m s_m B_m with λ = w/Σw are averages of the
            factors, as in MoE Merging (D.1), and ΔW is the exact sum; None where ranks or layers differ, or a weight is
            negative.
    """

    adapter: PeftFolder
    exact: int
    kept: float | None
    averaged: float | None

    @property
    def how(self) -> str:
        """How near it is to the sum, in a few words."""
        if self.kept is None:
            return "exact"
        return f"it keeps {100 * self.kept:.2f} % of the sum's squared norm"

    @property
    def warning(self) -> str:
        """What averaging A and B would be instead."""
        text = "the products B·A are summed; averaging A and B instead would give another update"
        if self.averaged is None:
            return text
        return f"{text}, {100 * self.averaged:.0f} % of the sum's norm away from it"


def merged(
    adapters: Mapping[str, PeftFolder], weights: Mapping[str, float], rank: int | None = None
) -> Merged:
    """Σ_m w_m·ΔW_m: by concatenating the factors, or the nearest sum of a lower rank by an SVD.

    Args:
        adapters: By name; ranks, scales and layers may differ.
        weights: w_m by name, not all 0.
        rank: Rank of the nearest sum; None: the exact one.

    Raises:
        ConfigError: The adapters do not fit each other, or the rank does not fit the sum.
    """
    used = {name: adapters[name] for name, weight in weights.items() if weight}
    check_fit(used)
    shares = [weights[name] for name in used]
    pairs = [(dict(folder.tensors), folder.lora) for folder in used.values()]
    tensors, lora = weighted_sum(pairs, shares)
    exact, kept = lora.r, None
    averaged = _averaged(pairs, shares, tensors)
    if rank is not None:
        (tensors, lora), kept = reduced((tensors, lora), rank)
    first = next(iter(used.values()))
    found = replace(
        first, tensors=tensors, lora=replace(lora, targets=_targets(list(used.values()))),
        transposed=any(folder.transposed for folder in used.values()),
    )  # fmt: skip
    return Merged(found, exact, kept, averaged)


def check_fit(adapters: Mapping[str, PeftFolder]) -> None:
    """Refuses adapters of which one layer has different sizes: they are for different backbones.

    Raises:
        ConfigError: The first such layer.
    """
    seen: dict[str, tuple[str, int]] = {}
    for name, folder in adapters.items():
        for key, tensor in folder.tensors.items():
            side = 1 if ".lora_A." in key else 0
            size = int(tensor.shape[side])
            first, wanted = seen.setdefault(key, (name, size))
            if size != wanted:
                what = ("outputs", "inputs")[side]
                layer = key.removeprefix("base_model.model.").rpartition(".lora_")[0]
                raise ConfigError(
                    f"{layer} has {wanted} {what} in {first} and {size} in {name}: they are for different backbones"
                )


def _targets(folders: Sequence[PeftFolder]) -> list[str]:
    """Names by which PEFT finds the layers: short ones only where they select the same layers in every folder."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for target in folder.lora.targets:
            selects = [n for n in folder.layers if n == target or n.endswith(f".{target}")]
            if found.setdefault(target, selects) != selects or not selects:
                return sorted({layer for each in folders for layer in each.layers})
    return sorted(found)


def _averaged(
    pairs: Sequence[tuple[dict[str, Tensor], Lora]], shares: Sequence[float], exact: Mapping[str, Tensor]
) -> float | None:  # fmt: skip
    """How far the product of the factors' averages is from the average of the products, relative to it."""
    import torch

    ranks = {lora.r for _, lora in pairs}
    layers = {frozenset(tensors) for tensors, _ in pairs}
    if len(pairs) < 2 or len(ranks) > 1 or len(layers) > 1 or min(shares) < 0:
        return None
    total = sum(shares)
    means = [share / total for share in shares]
    whole = off = 0.0
    for one in (name for name in exact if ".lora_A." in name):
        two = one.replace(".lora_A.", ".lora_B.")
        a, b = torch.zeros(1), torch.zeros(1)
        for mean, (tensors, lora) in zip(means, pairs, strict=True):
            a = a + mean * tensors[one].double()
            b = b + total * mean * lora.scale * tensors[two].double()
        left, right = exact[two].double(), exact[one].double()
        whole += _squared(left, right)
        off += _squared(torch.cat([b, -left], 1), torch.cat([a, right]))
    return math.sqrt(off / whole) if whole else None


def _squared(b: Tensor, a: Tensor) -> float:
    """‖B A‖² (Frobenius) of B [out, r] and A [r, in], without their product."""
    return max(0.0, float(((b.T @ b) * (a @ a.T)).sum()))
