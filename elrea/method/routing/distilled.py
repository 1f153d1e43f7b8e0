"""Routing without the prompt's gradient: the settings, and how far its cosines are those of the gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.routing.prompt_states import Layer, Pooling, PromptStates
from elrea.method.routing.weights import Router, Routing

WIDEST = 100_000
"""Hidden units: more would be a second backbone."""
NOT_LEARNED = ("compare", "renormalise", "temperature")
"""Settings that the student's cosines do not hang on."""


@dataclass(frozen=True)
class Distilled(Router):
    """A `Router` whose cosines are a student's guess: a test prompt then needs no backward pass.

    The student is trained on the training prompts, whose gradient features are there from step 2, and stopped early on
    the data's dev prompts (whose gradients are taken once for it), or where the data has none on held-out training
    prompts. All that follows from the cosines (5.8, 5.9) stays as it is.

    What a prompt costs: one forward pass of the base adapter over the routing prompt, beside the members' own. The
    floor is one expert at the base adapter's price: with top_k=1 and without the base's share that one pass over the
    prompt, one of the expert over it, and one pass per new token.
    """

    layer: Layer = "last"
    """Whose hidden states: `last`, `early` (after a quarter of the decoder layers), or after so many of them."""
    pooling: Pooling = "both"
    """Mean over the prompt's tokens, the last token, or both side by side."""
    width: int | None = 256
    """Hidden units; null makes the student linear."""
    epochs: int = 100
    """Passes over the training prompts at most."""
    patience: int = 10
    """Epochs without a better dev loss after which it stops; the best epoch's student is kept."""
    learning_rate: float = 1e-3
    """Of Adam."""
    held_out: float = 0.1
    """Share of the training prompts to stop by, drawn by the run's seed, where the data has no dev split."""
    compare: bool = True
    """Take the test prompts' gradients all the same, to report how well the student agrees with them: as much as
    routing by gradient costs. False for a run that is to be cheap."""

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
        """What the student looks at."""
        return PromptStates(self.layer, self.pooling)


def agreement(mine: Routing, gradient: Routing) -> dict[str, float | int]:
    """How far one routing says what another says of the same prompts; those without a gradient count for nothing.

    Args:
        mine: Cosines [n, C] of the student.
        gradient: Cosines [n, C] of the prompts' gradients.

    Returns:
        `prompts` (how many were compared), `top1` (share with the same nearest cluster), `spearman` (mean over the
        prompts of the rank correlation of their C cosines; ties share their ranks, equal cosines throughout count 0),
        `cosine` and `w_base` (mean absolute differences).
    """
    rows = gradient.cosines.any(dim=1)
    a, b = mine.cosines[rows], gradient.cosines[rows]
    if not len(a):
        return {"prompts": 0}
    return {
        "prompts": len(a),
        "top1": round(float((a.argmax(1) == b.argmax(1)).float().mean()), 6),
        "spearman": round(float(_correlations(_ranks(a), _ranks(b)).mean()), 6),
        "cosine": round(float((a - b).abs().mean()), 6),
        "w_base": round(float((mine.base - gradient.base)[rows].abs().mean()), 6),
    }


def _ranks(cosines: Tensor) -> np.ndarray:
    """Ranks within each row, less their mean."""
    ranks = np.asarray(rankdata(cosines.numpy(), axis=1))
    return ranks - ranks.mean(axis=1, keepdims=True)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0)
