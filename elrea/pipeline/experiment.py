"""The parts of one run as plain objects: data, backbone, training, features, clustering, routing, strategies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from elrea.data.corpus import Corpus
from elrea.data.prompts import Prompter
from elrea.data.wording_key import has_thoughts, wording_key
from elrea.evaluation.settings import Evaluation
from elrea.method.clustering.points import Clustering
from elrea.method.ensemble.strategy import Strategy
from elrea.method.features.base import Features
from elrea.method.routing.weights import Router
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.training.settings import Training
from elrea.plugins import key_name


@dataclass(frozen=True)
class Experiment:
    """The parts of a run.

    Attributes:
        corpus: Train, dev and test examples.
        backbone: Settings of the frozen model.
        lora: Shape of the adapters.
        training: Settings of the adapters' training.
        features: Computes the feature of a prompt.
        clustering: Groups the training prompts' features.
        router: Turns cosines with the centroids into weights, (5.9) and (5.10).
        strategies: By name, in the order of the results table.
        evaluation: Settings of scoring.
        device: Where tensors are placed.
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
    def max_tokens(self) -> int:
        """Maximum number of tokens of prompt and response together."""
        return self.backbone.length()

    @cached_property
    def prompter(self) -> Prompter:
        """Words examples; needs the tokenizer alone, so that of several processes only the workers load the model.

        Responses of the training data may have thoughts, which decides where all prompts end.
        """
        tokenizer, wording = self.backbone.tokenizer(), self.backbone.wording()
        plain = Prompter(tokenizer, self.max_tokens, wording)
        if not has_thoughts(plain, self.corpus.train):
            return plain
        return Prompter(tokenizer, self.max_tokens, replace(wording, thoughts=True))

    def prompts(self) -> dict[str, Any]:
        """Settings that determine a prompt's token ids, besides the examples; part of the stages' keys."""
        backbone, identity = self.backbone, self.backbone.identity()
        mended = wording_key(self.prompter, list(self.corpus))
        return {
            "backbone": identity,
            "max_length": backbone.max_length,
            "chat": backbone.use_chat_template,
            "dtype": backbone.dtype,
            "quantise": backbone.quantise,
            **({"wording": mended} if mended else {}),
        }


def key_fields(part: Any, *left_out: str) -> dict[str, Any]:
    """Class (`plugins.key_name`) and fields of a part, as they enter a stage's key.

    Fields that the part's class names in `added_fields` are left out at their defaults: stages that were made before
    the class had them keep their keys.

    Args:
        part: A dataclass instance; nested ones are described in the same way.
        left_out: Names of fields that cannot change the stage's output.
    """
    added = getattr(part, "added_fields", ())
    defaults = {field.name: field.default for field in fields(part) if field.name in added}
    kept = {
        name: value
        for name, value in asdict(part).items()
        if name not in left_out and not (name in defaults and value == defaults[name])
    }
    for name in kept:
        inner = getattr(part, name)
        if hasattr(inner, "__dataclass_fields__"):
            kept[name] = key_fields(inner)
    return {"class": key_name(type(part)), **kept}
