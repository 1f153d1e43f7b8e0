"""From cosines to the members' weights (5.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elrea.errors import ConfigError


@dataclass(frozen=True)
class Router:
    """Weighs the experts by a softmax of standardised cosines, the base adapter by what the nearest one leaves."""

    temperature: float = 1.0
    """Divides the standardised cosines before the softmax. The paper's is 1."""
    renormalise: bool = True
    """Top-k: let the kept experts' weights sum to 1 again (the paper does not say)."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"routing.temperature={self.temperature}: must be above 0 and finite")


@dataclass(frozen=True)
class Routing:
    """How near a set of prompts lies to the clusters, and what follows from it.

    Attributes:
        cosines: cos_c [n, C].
        router: The settings.
        sources: Of the prompts [n], where they are known.
        trained: Sources that there are training examples of.
    """

    cosines: Tensor
    router: Router
    sources: Sequence[str] = ()
    trained: Sequence[str] = ()

    @property
    def clusters(self) -> int:
        """C."""
        return self.cosines.shape[1]

    @property
    def base(self) -> Tensor:
        """w_base = 1 - max_c cos_c [n]: how foreign a prompt is."""
        return 1 - self.cosines.max(dim=1).values

    def experts(self, top_k: int | None = None) -> Tensor:
        """w_c = softmax_c(z_c), z_c = (cos_c - μ)/σ with μ and σ (the population's) over this prompt's clusters (5.9).

        Where all cosines are equal, σ is 0 and all experts weigh the same.

        Args:
            top_k: Keep the k largest, the others 0; None, or k of C and more, keeps all.

        Returns:
            [n, C], rows that sum to 1 (without renormalising, top-k rows to less).
        """
        centred = self.cosines - self.cosines.mean(dim=1, keepdim=True)
        spread = centred.square().mean(dim=1, keepdim=True).sqrt()
        # Rounding leaves equal cosines a spread of some 1e-8: that is 0 too.
        z = torch.where(spread > 1e-7, centred / spread.clamp(min=1e-7), torch.zeros_like(centred))
        z = z - z.max(dim=1, keepdim=True).values  # a small temperature must not overflow
        weights = torch.softmax(z.double() / self.router.temperature, dim=1).to(z)
        if top_k is None or top_k >= weights.shape[1]:
            return weights
        kept = torch.zeros_like(weights).scatter(1, weights.topk(top_k, dim=1).indices, 1.0)
        weights = weights * kept
        return weights / weights.sum(dim=1, keepdim=True) if self.router.renormalise else weights
