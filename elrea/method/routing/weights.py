"""Weights of the members for a prompt, from its cosines with the clusters' centroids (5.9)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from elrea.data.prompts import Encoded
from elrea.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel

    from elrea.method.features.base import Advance

Labelled = tuple[Sequence[Encoded], Tensor]
"""Prompts, and what a router learns of each [n, C]: its cosines by gradient, or its cluster, one-hot."""

Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
"""(description, total, unit in the plural) -> a context that yields `advance(n)`."""

FLAT = 1e-7
"""Standard deviations below it are rounding: equal cosines have one of about 1e-8."""


@dataclass(frozen=True)
class Router:
    """Weighs the experts by a softmax of standardised cosines, and the base adapter by 1 - the highest cosine (5.9).

    A new router is a frozen dataclass that derives from this class, in a file of this package, and a YAML file in
    conf/routing. One that weighs otherwise overrides `base` or `scores`; one that predicts the cosines derives from
    `LearnedRouter`.
    """

    temperature: float = 1.0
    """Divides the standardised cosines before the softmax. The paper's is 1."""
    renormalise: bool = True
    """Top-k: scale the kept experts' weights to a sum of 1 again (the paper does not say)."""
    report_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that change what is reported, but no prompt's weights: they are left out of the keys of scores."""
    files: ClassVar[tuple[str, ...]] = ()
    """Files of its stage that `cosines` needs: an exported ensemble has them in `routing/`."""
    card: ClassVar[str] = """the clusters' centroids (`centroids.safetensors`), and the base
  adapter with Adam's moments at each epoch's end (`epoch_1/` ...), with which the prompt's gradient is taken."""
    """Description of `routing/` in an exported ensemble's README."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"routing.temperature={self.temperature}: must be above 0 and finite")

    def base(self, cosines: Tensor) -> Tensor:
        """w_base = 1 - max_c cos_c of each prompt [n] (5.9): the further from every cluster, the higher.

        Args:
            cosines: cos_c [n, C].
        """
        return 1 - cosines.max(dim=1).values

    def scores(self, cosines: Tensor) -> Tensor:
        """z_c = (cos_c - μ)/σ, with the mean μ and the population's standard deviation σ over the prompt's own
        clusters (5.9). Where all cosines are equal, σ is 0 and so are all z_c.

        Args:
            cosines: cos_c [n, C].

        Returns:
            [n, C].
        """
        centred = cosines - cosines.mean(dim=1, keepdim=True)
        spread = centred.square().mean(dim=1, keepdim=True).sqrt()
        return torch.where(
            spread > FLAT, centred / spread.clamp(min=FLAT), torch.zeros_like(centred)
        )

    def experts(self, cosines: Tensor, top_k: int | None = None) -> Tensor:
        """w_c = softmax_c(z_c / temperature) (5.9).

        Args:
            cosines: cos_c [n, C].
            top_k: Keep the k largest weights and set the others to 0; None, or k >= C, keeps all.

        Returns:
            [n, C]; rows sum to 1 (top-k without `renormalise`: to less).
        """
        z = self.scores(cosines)
        z = z - z.max(dim=1, keepdim=True).values  # a small temperature must not overflow
        weights = torch.softmax(z.double() / self.temperature, dim=1).to(z)
        if top_k is None or top_k >= weights.shape[1]:
            return weights
        kept = torch.zeros_like(weights).scatter(1, weights.topk(top_k, dim=1).indices, 1.0)
        weights = weights * kept
        return weights / weights.sum(dim=1, keepdim=True) if self.renormalise else weights

    def by_gradient(self) -> Router:
        """A router with the same weights whose cosines come from the prompts' own features."""
        return self

    def takes_features(self) -> bool:
        """Whether a run computes the test prompts' own features: to route by them, or to compare with them."""
        return True


class LearnedRouter(Router, ABC):
    """A router that trains a model to predict the cosines, so that a test prompt needs no feature of its own.

    Attributes:
        fixed_fields: Fields that the trained model does not depend on: they are left out of its stage's key.
        learns: What it is taught of the training prompts: their cosines, or their clusters (rows of 0 and one 1).
    """

    learns: ClassVar[Literal["cosines", "clusters"]] = "cosines"
    fixed_fields: ClassVar[tuple[str, ...]] = ("renormalise", "temperature")

    def fits(self, model: PeftModel) -> None:
        """Rejects settings that do not fit the adapted model, before it is trained.

        Raises:
            ConfigError: Which setting, and why.
        """
        return

    def by_gradient(self) -> Router:
        return Router(self.temperature, self.renormalise)

    @abstractmethod
    def train(
        self,
        folder: Path,
        model: PeftModel,
        adapter: Path,
        train: Labelled,
        dev: Labelled | None,
        *,
        seed: int,
        pad_id: int,
        progress: Progress,
    ) -> None:
        """Trains the model and writes it to `folder`.

        Args:
            folder: Folder of the stage; `checkpoint/` in it is for a killed run to resume from.
            model: A PEFT model of the base adapter's shape; its adapter may be replaced.
            adapter: PEFT folder of the finished base adapter.
            train: Training prompts with their cosines.
            dev: Held-out prompts to stop by; None if the data has none.
            seed: Seed of the training.
            pad_id: Token id of padding.
            progress: Opens a progress bar.
        """

    @abstractmethod
    def predict(
        self,
        folder: Path,
        model: PeftModel,
        adapter: Path,
        prompts: Sequence[Encoded],
        *,
        pad_id: int,
        advance: Advance = lambda _n: None,
    ) -> Tensor:
        """Predicts cos_c of prompts [n, C] in float32.

        Args:
            folder: Where `files` of the trained model are.
            model, adapter, pad_id: As for `train`.
            prompts: Prompts without responses.
            advance: Called with the number of finished prompts.

        Raises:
            StoreError: A file of the trained model is missing or damaged.
        """


@dataclass(frozen=True)
class Routing:
    """Cosines of a set of prompts with the clusters, and the weights that follow.

    Attributes:
        cosines: cos_c [n, C].
        router: How cosines become weights.
        sources: Source of each prompt [n], if known.
        trained: Sources that have training examples.
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
        """w_base of each prompt [n]."""
        return self.router.base(self.cosines)

    def experts(self, top_k: int | None = None) -> Tensor:
        """w_c of each prompt [n, C]; arguments as for `Router.experts`."""
        return self.router.experts(self.cosines, top_k)
