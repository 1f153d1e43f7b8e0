"""Everything that one run is made of, as plain objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from elrea.adapters.lora import Lora
from elrea.adapters.training import Training
from elrea.backbone.device import Device
from elrea.backbone.load import Pretrained
from elrea.clustering.points import Clustering
from elrea.data.examples import Corpus
from elrea.ensemble.strategy import Strategy
from elrea.evaluation.settings import Evaluation
from elrea.features.reader import Features
from elrea.routing.weights import Router


class Source(Protocol):
    """Where examples come from."""

    def load(self) -> Corpus: ...


@dataclass(frozen=True)
class Experiment:
    """The parts of a run.

    Attributes:
        corpus: Train, dev and test examples.
        backbone: Where the frozen model comes from.
        lora: The adapters' shape.
        training: How they are trained.
        features: What a prompt's feature is.
        clustering: How features are grouped.
        router: How cosines become weights.
        strategies: By name, in the order of the table.
        evaluation: How they are scored.
        device: Where.
        seed: Of training, clustering and random clusters.
    """

    corpus: Corpus
    backbone: Pretrained
    lora: Lora
    training: Training
    features: Features
    clustering: Clustering
    router: Router
    strategies: Mapping[str, Strategy]
    evaluation: Evaluation
    device: Device
    seed: int


def described(part: Any, *left_out: str) -> dict[str, Any]:
    """A part's class and fields, for the key of a stage, less those that cannot change its output."""
    fields = {name: value for name, value in asdict(part).items() if name not in left_out}
    for name in fields:
        inner = getattr(part, name)
        if hasattr(inner, "__dataclass_fields__"):
            fields[name] = described(inner)
    return {"class": type(part).__name__, **fields}
