"""The last stages' keys: what each strategy writes, and how all strategies score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from elrea.errors import ConfigError
from elrea.evaluation import judges
from elrea.evaluation.generation import written
from elrea.method.ensemble.strategy import BACKBONE
from elrea.method.routing.weights import Routing
from elrea.pipeline.experiment import Experiment, described
from elrea.store.stage import Stage, Store


@dataclass(frozen=True)
class Upstream:
    """What they stand on.

    Attributes:
        base: Key of the base adapter.
        members: Keys of adapters beside the base, by name.
        gates: Keys of the gates, by strategy.
        clusters: Key of the clusters, if there are any.
        routed: Key of what prompts are routed by, if any strategy routes.
        prompts: What decides a prompt's token ids beside the examples.
        count: C.
        sources: Of the training examples.
    """

    base: str
    members: Mapping[str, str]
    gates: Mapping[str, str]
    clusters: str | None
    routed: str | None
    prompts: Mapping[str, Any]
    count: int
    sources: Sequence[str]


def answer_stages(it: Experiment, store: Store, up: Upstream) -> dict[str, Stage]:
    """A stage for the texts of every strategy that writes any, by its name.

    It hangs on that strategy's own members alone, so that another one, or another number of clusters, leaves it.

    Raises:
        ConfigError: Texts of that length leave no room for prompts; said here, before anything is trained.
    """
    stages, test = {}, it.corpus.test
    nobody = Routing(torch.empty(0, up.count), it.router, [], up.sources)
    keys = {**up.members, "base": up.base, BACKBONE: None}
    for name, strategy in it.strategies.items():
        chosen = written(test, it.evaluation.by, strategy)
        if not chosen:
            continue
        if (length := it.evaluation.max_new_tokens) >= it.room:
            raise ConfigError(
                f"evaluation.max_new_tokens={length} leaves no room for a prompt in the {it.room} tokens of "
                "backbone.max_length; lower it, or raise that"
            )
        inputs: dict[str, Any] = {
            "strategy": described(strategy),
            "members": {member: keys[member] for member in strategy.members(nobody)},
            "prompts": up.prompts,
            "test": it.test,
            "written": "all" if len(chosen) == len(test) else it.evaluation.by,
            "max_new_tokens": length,
            "stop": it.evaluation.stop,
        }
        if name in up.gates:
            inputs["gates"] = up.gates[name]
        if strategy.routed:
            inputs["routed"] = {
                "by": up.routed,
                "router": described(it.router, "compare"),
                "clusters": up.clusters,
            }
        stages[name] = store.stage("answers", 1, inputs)
    return stages


def score_stage(it: Experiment, store: Store, up: Upstream, texts: Mapping[str, Stage]) -> Stage:
    """Section 3 of the method: routing, mixing and scoring."""
    inputs: dict[str, Any] = {
        "base": up.base,
        "members": {**up.members, **up.gates},
        "strategies": {name: described(s) for name, s in it.strategies.items()},
        "router": described(it.router, "compare"),
        "clusters": up.clusters,
        "prompts": up.routed or up.prompts,
        "test": it.test,
    }
    if it.evaluation.mean_logits:
        inputs["mean_logits"] = True
    if texts:
        inputs["answers"] = {name: stage.key for name, stage in texts.items()}
        inputs["judges"] = judges.VERSION
        inputs["loss"] = it.evaluation.by != "generation"
    return store.stage("scores", 1, inputs)
