"""ELREA with the sources as clusters, and a text router for prompts whose source nobody names."""

from __future__ import annotations

from dataclasses import dataclass, field

from elrea.method.clustering.points import (
    Clustering,  # config classes need their fields' types
)
from elrea.method.clustering.source import SourceClusters
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import Regrouped
from elrea.method.features.tokens import Tokens
from elrea.method.routing.weights import Router
from elrea.method.routing.words import Words


@dataclass(frozen=True)
class ElreaBySource(Elrea, Regrouped):
    """Σ_s w_s·logits_s over one expert per source s (5.10), with w by P(s | words of the prompt) (`Words`).

    The rival that needs no gradient: labels that the data has anyway, and a router that only reads.
    """

    features: Tokens = field(default_factory=Tokens)
    """By which small sources find the nearest one to join."""
    clustering: Clustering | None = field(default_factory=SourceClusters)
    """The sources."""
    router: Router | None = field(default_factory=Words)
    """How a prompt's source is recognised."""
