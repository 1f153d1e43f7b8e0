"""Everything that one run is made of, and what it came to, as plain objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from elrea.data.corpus import Corpus
from elrea.evaluation.scoring import Outcome
from elrea.evaluation.settings import Evaluation
from elrea.method.clustering.points import Clustering
from elrea.method.ensemble.strategy import Strategy
from elrea.method.features.protocol import Features
from elrea.method.routing.weights import Router, Routing
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.training.settings import Training


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

    @cached_property
    def test(self) -> str:
        """The test examples' fingerprint."""
        return self.corpus.fingerprint("test")

    @cached_property
    def room(self) -> int:
        """Tokens of prompt and response at most."""
        return self.backbone.length()

    def prompts(self) -> dict[str, Any]:
        """What decides a prompt's token ids beside the examples."""
        backbone = self.backbone
        return {
            "backbone": backbone.identity(),
            "max_length": backbone.max_length,
            "chat": backbone.use_chat_template,
            "dtype": backbone.dtype,
            "quantise": backbone.quantise,
        }


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        outcomes: Per strategy, test item by test item.
        routing: Cosines of the test prompts with the clusters, as the strategies weighed by them.
        gradient: By gradient, where the router is distilled from that and is compared with it; else None.
        weights: Per strategy and test prompt, by member name.
        too_long: Ids of test prompts that did not fit.
        shots: Of each test prompt, how many of its solved examples fitted; empty where none has any.
        dropped: Ids of training examples that did not fit.
        skipped: Per split (train, test), ids of examples without a feature: gradient zero or not finite.
        assignment: Cluster of each training example that was kept [n]; -1 for those without a feature.
        quality: Figures on the clusters.
        reused: Per stage, whether it was there before.
    """

    outcomes: dict[str, Outcome]
    routing: Routing
    gradient: Routing | None
    weights: dict[str, Tensor]
    too_long: list[str]
    shots: list[int]
    dropped: list[str]
    skipped: dict[str, list[str]]
    assignment: list[int]
    quality: dict[str, Any]
    reused: dict[str, bool]


def described(part: Any, *left_out: str) -> dict[str, Any]:
    """A part's class and fields, for the key of a stage, less those that cannot change its output."""
    fields = {name: value for name, value in asdict(part).items() if name not in left_out}
    for name in fields:
        inner = getattr(part, name)
        if hasattr(inner, "__dataclass_fields__"):
            fields[name] = described(inner)
    return {"class": type(part).__name__, **fields}
