"""Settings of an adapter that clusters steer; importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from elrea.models.adapter_shape import Lora

Form = Literal["full", "diagonal"]
Grouping = Literal["found", "random", "source"]


@dataclass(frozen=True)
class Steering:
    """How clusters steer one adapter: ΔW_c = (α/r)·(B M_c A + B_c A_c).

    A and B are shared and of rank `trunk`; M_c is the cluster's own, the identity at the start; A_c and B_c are the
    cluster's own expert of rank `added`.

    Attributes:
        form: M_c is a full matrix [trunk, trunk], or a diagonal one.
        rate: Learning rate of the factors M_c, as a multiple of the adapter's; 0 keeps them at the identity.
        clusters: C.
        by: The clusters: those of the features, random ones of the same sizes, or the examples' sources.
        trunk: Rank of A and B; 0 leaves the experts alone.
        added: Rank of A_c and B_c; 0 leaves A and B alone.
    """

    form: Form
    rate: float
    clusters: int
    by: Grouping
    trunk: int
    added: int = 0

    @property
    def rank(self) -> int:
        """Rank of the adapter that holds A and B and the experts of all clusters, while it is trained."""
        return self.trunk + self.clusters * self.added

    def member(self, lora: Lora) -> Lora:
        """Shape of one cluster's adapter, at the scale of the whole one.

        Args:
            lora: Shape of the whole adapter, of rank `rank`.
        """
        return lora.of_rank(self.trunk + self.added)


def member_names(clusters: int) -> list[str]:
    """Names of the clusters' adapters, and of their folders: `steered-0` ..."""
    return [f"steered-{cluster}" for cluster in range(clusters)]
