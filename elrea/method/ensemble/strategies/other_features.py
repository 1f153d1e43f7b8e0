"""ELREA with clusters and routing by other features than the run's: rows beside ELREA that show what they add."""

from __future__ import annotations

from dataclasses import dataclass, field

from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import Regrouped
from elrea.method.features.states import States
from elrea.method.features.tokens import Tokens


@dataclass(frozen=True)
class ElreaByStates(Elrea, Regrouped):
    """Clusters, experts and routing (5.8 to 5.10) by hidden states; the difference to ELREA is due to the gradients."""

    features: States = field(default_factory=States)
    """Which states."""


@dataclass(frozen=True)
class ElreaByTokens(Elrea, Regrouped):
    """Clusters, experts and routing by counts of the prompt's tokens: what can be read off the text."""

    features: Tokens = field(default_factory=Tokens)
    """How tokens are counted."""
