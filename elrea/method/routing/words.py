"""A text router: a logistic regression on a prompt's words predicts its cluster, without any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from elrea.errors import ConfigError, StoreError
from elrea.method.routing.files import FIGURES, WEIGHTS
from elrea.method.routing.weights import Labelled, LearnedRouter, Progress
from elrea.models.seeds import seed_of
from elrea.store.files import write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from elrea.data.prompts import Encoded
    from elrea.method.features.base import Advance


@dataclass(frozen=True)
class Words(LearnedRouter):
    """A `Router` in which P(c | words of the prompt) stands for cos_c.

    P = softmax(W x + b) is learned from the clusters of the training prompts, by maximum likelihood with ‖W‖²/(2λ)
    added (scikit-learn). x has log(1 + count) of every token of the training prompts, scaled to length 1. The weights
    follow from P as from cosines (5.9), and w_base = 1 - max_c P.
    """

    strength: float = 1.0
    """λ: the larger, the freer the weights; scikit-learn's C."""
    held_out: float = 0.1
    """Share of the training prompts on which the accuracy is measured; the router itself learns from all."""
    learns: ClassVar[Literal["cosines", "clusters"]] = "clusters"
    files: ClassVar[tuple[str, ...]] = (WEIGHTS, FIGURES)
    card: ClassVar[str] = """a logistic regression on counts of a prompt's tokens
  (`router.safetensors`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength < float("inf"):
            raise ConfigError(f"routing.strength={self.strength}: must be above 0 and finite")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"routing.held_out={self.held_out}: must be between 0 and 1")

    def takes_features(self) -> bool:
        """No: a test prompt is read, and nothing is computed of it."""
        return False

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
        """As `LearnedRouter.train`; the label of a training prompt is the column of its row's largest entry."""
        import torch
        from safetensors.torch import save_file

        prompts, labels = train
        clusters, count = labels.argmax(dim=1).numpy(), labels.shape[1]
        vocabulary = np.unique(np.concatenate([np.asarray(p.prompt) for p in prompts]))
        with progress("train router", len(prompts), "prompts") as advance:
            inputs = counts(prompts, vocabulary)
            order = np.random.default_rng(seed_of(seed, "words")).permutation(len(prompts))
            aside = max(1, round(self.held_out * len(order)))
            tried, rest = order[:aside], order[aside:]
            accuracy = None
            if len(rest):
                weights, bias = self._fit(inputs[rest], clusters[rest], count)
                found = (inputs[tried] @ weights.T + bias).argmax(axis=1)
                accuracy = round(float((found == clusters[tried]).mean()), 6)
            weights, bias = self._fit(inputs, clusters, count)
            advance(len(prompts))
        tensors = {"vocabulary": vocabulary.astype(np.int64), "weights": weights, "bias": bias}
        save_file({name: torch.from_numpy(a) for name, a in tensors.items()}, folder / WEIGHTS)
        figures = {"passes": 0, "train": len(prompts), "dev": aside, "held_out": True}
        write_json(folder / FIGURES, {**figures, "accuracy": accuracy})

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
        import torch
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / WEIGHTS
        try:
            tensors = load_file(path)
            vocabulary, weights, bias = (tensors[n] for n in ("vocabulary", "weights", "bias"))
            if weights.shape != (len(bias), len(vocabulary)):
                raise ValueError(f"weights are {weights.shape}")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise StoreError(f"{path} is no text router: {error}") from error
        logits = torch.from_numpy(counts(prompts, vocabulary) @ weights.T + bias)
        advance(len(prompts))
        return torch.softmax(logits, dim=1).float()

    def _fit(self, inputs: csr_matrix, clusters: Any, count: int) -> tuple[Any, Any]:
        """W [C, words] and b [C]; a cluster without examples has probability 0.

        Args:
            inputs: As `counts` gives them [n, words].
            clusters: The cluster of each prompt [n].
            count: C.
        """
        from sklearn.linear_model import LogisticRegression

        found = np.unique(clusters)
        weights, bias = np.zeros((count, inputs.shape[1])), np.full(count, -1e9)
        if len(found) == 1:
            bias[found] = 0.0
            return weights, bias
        fitted = LogisticRegression(C=self.strength, max_iter=1000).fit(inputs, clusters)
        if len(found) == 2:  # scikit-learn has the second one's only, against 0
            weights[found[1]], bias[found] = fitted.coef_[0], (0.0, fitted.intercept_[0])
        else:
            weights[found], bias[found] = fitted.coef_, fitted.intercept_
        return weights, bias


def counts(prompts: Sequence[Encoded], vocabulary: Any) -> csr_matrix:
    """log(1 + count) of each token of the vocabulary (sorted ids), scaled to length 1: [n, words]."""
    from scipy.sparse import csr_matrix

    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, prompt in enumerate(prompts):
        found = Counter(prompt.prompt)
        places = {t: int(np.searchsorted(vocabulary, t)) for t in found}
        known = {
            t: place
            for t, place in places.items()
            if place < len(vocabulary) and vocabulary[place] == t
        }
        logs = np.log1p([found[t] for t in known])
        rows += [row] * len(known)
        columns += known.values()
        values += (logs / max(float(np.linalg.norm(logs)), 1e-30)).tolist()
    return csr_matrix((values, (rows, columns)), shape=(len(prompts), len(vocabulary)))
