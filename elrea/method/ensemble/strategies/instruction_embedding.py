"""Instruction Embedding: ELREA with what prompts say in place of what they would change in the base adapter."""

from __future__ import annotations

from dataclasses import dataclass, field

from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import Regrouped
from elrea.method.features.embedding import Embedding


@dataclass(frozen=True)
class InstructionEmbedding(Elrea, Regrouped):
    """Clusters, experts and routing (5.8 to 5.10) by embeddings: what gradients are worth is the difference."""

    features: Embedding = field(default_factory=Embedding)
    """Which embedding: the backbone's own, or a sentence-transformers model."""
