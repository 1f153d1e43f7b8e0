"""The distilled router: a small model predicts a prompt's cosines, so that no gradient of it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from elrea.errors import ConfigError
from elrea.method.features.states import Layer, Pooling, PromptStates
from elrea.method.routing.files import FIGURES, WEIGHTS
from elrea.method.routing.weights import Labelled, LearnedRouter, Progress, Routing

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from elrea.data.prompts import Encoded
    from elrea.method.features.base import Advance

WIDEST = 100_000
"""Largest number of hidden units: more would be a second backbone."""


@dataclass(frozen=True)
class Distilled(LearnedRouter):
    """A `Router` whose cosines are predicted by a student: a test prompt then needs no backward pass.

    The student is trained on the training prompts, whose gradient features exist from step 2, and stopped early on the
    data's dev prompts (whose gradients are taken once, for this) or, if the data has none, on held-out training
    prompts. The weights follow from the cosines as before (5.9).

    Cost of a prompt: one forward pass of the base adapter over the routing prompt, beside the members' own passes. The
    cheapest ensemble is one expert (top_k=1, base_share=false): that pass, the expert's own over the prompt, and one
    pass per new token.
    """

    layer: Layer = "last"
    """Whose hidden states: `last`, `early` (after a quarter of the decoder layers), or after that many layers."""
    pooling: Pooling = "both"
    """Mean over the prompt's tokens, the last token, or both concatenated."""
    width: int | None = 256
    """Hidden units; null makes the student linear."""
    epochs: int = 100
    """Passes over the training prompts at most."""
    patience: int = 10
    """Epochs without a better dev loss after which training stops; the best epoch's student is kept."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    held_out: float = 0.1
    """Share of the training prompts to stop by, drawn by the run's seed, if the data has no dev split."""
    compare: bool = True
    """Compute the test prompts' gradients as well, to report how well the student agrees with them: this costs as much
    as routing by gradient. False for a cheap run."""
    report_fields: ClassVar[tuple[str, ...]] = ("compare",)
    fixed_fields: ClassVar[tuple[str, ...]] = ("compare", *LearnedRouter.fixed_fields)
    files: ClassVar[tuple[str, ...]] = (WEIGHTS, FIGURES)
    card: ClassVar[str] = """a small model (`router.safetensors`) that predicts a prompt's
  cosines with the clusters' centroids from the base adapter's hidden states."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "epochs", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"routing.{name}={value}: must be at least 1")
        if self.width is not None and self.width > WIDEST:
            raise ConfigError(f"routing.width={self.width}: must be at most {WIDEST:,}")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(
                f"routing.learning_rate={self.learning_rate}: must be above 0 and finite"
            )
        if not 0 < self.held_out < 1:
            raise ConfigError(f"routing.held_out={self.held_out}: must be between 0 and 1")

    @property
    def states(self) -> PromptStates:
        """The student's inputs."""
        return PromptStates(self.layer, self.pooling)

    def takes_features(self) -> bool:
        return self.compare

    def fits(self, model: PeftModel) -> None:
        self.states.fits(model)

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
        from elrea.method.routing.student import distil

        distil(
            folder, model, adapter, train, dev, self, seed=seed, pad_id=pad_id, progress=progress
        )

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
        from elrea.method.routing.student import predict

        return predict(folder, model, adapter, prompts, self, pad_id=pad_id, advance=advance)


def agreement(student: Routing, gradient: Routing) -> dict[str, float | int]:
    """Compares a student's routing with routing by gradient; prompts without a gradient are left out.

    Args:
        student: Predicted cosines [n, C].
        gradient: Cosines of the prompts' gradients [n, C].

    Returns:
        `prompts` (how many were compared), `top1` (share with the same nearest cluster), `spearman` (mean rank
        correlation of a prompt's C cosines; ties share their ranks, and a row of equal cosines counts as 0), `cosine`
        and `w_base` (mean absolute differences).
    """
    rows = gradient.cosines.any(dim=1)
    a, b = student.cosines[rows], gradient.cosines[rows]
    if not len(a):
        return {"prompts": 0}
    return {
        "prompts": len(a),
        "top1": round(float((a.argmax(1) == b.argmax(1)).float().mean()), 6),
        "spearman": round(float(_correlations(_ranks(a), _ranks(b)).mean()), 6),
        "cosine": round(float((a - b).abs().mean()), 6),
        "w_base": round(float((student.base - gradient.base)[rows].abs().mean()), 6),
    }


def _ranks(cosines: Tensor) -> np.ndarray:
    """Ranks within each row, minus their mean."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(cosines.numpy(), axis=1))
    return ranks - ranks.mean(axis=1, keepdims=True)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the centred ranks of each row; 0 where one has no spread."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0)
