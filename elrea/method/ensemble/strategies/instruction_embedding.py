"""Instruction Embedding: ELREA with text embeddings instead of gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import Regrouped
from elrea.method.features.embedding import Embedding


@dataclass(frozen=True)
class InstructionEmbedding(Elrea, Regrouped):
    """Clusters, experts and routing (5.8 to 5.10) by embeddings; the difference to ELREA is due to the gradients."""

    features: Embedding = field(default_factory=Embedding)
    """The embedding: the backbone's own, or a sentence-transformers model's."""

    @property
    def label(self) -> str:
        """Without an embedding model it is no sentence embedding, and is not called one."""
        return "" if self.features.model else "mean hidden state"
