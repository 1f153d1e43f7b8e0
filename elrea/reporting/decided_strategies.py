"""Strategies as dev examples have decided them: what a report says of them, and what an ensemble answers by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from elrea.method.ensemble.folder import GATE, SERVED
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import Regrouped
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.steps.decisions import decided, read_pairs, verdicts
from elrea.reporting.report import DevGate

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.method.ensemble.strategy import Strategy
    from elrea.method.routing.weights import Routing
    from elrea.pipeline.graph import Graph
    from elrea.store.stage import Stage


def dev_gates_of(graph: Graph) -> Iterator[tuple[str, DevGate]]:
    """By strategy that dev examples decide, what they say of each cluster."""
    for branch in graph.branches:
        for name, strategy in branch.context.experiment.strategies.items():
            if found := verdicts(name, strategy, branch.stages):
                pairs = read_pairs(branch.stages[f"paired-{name}"].folder)
                yield name, DevGate(pairs.measure, found, pairs.left_out)


def mixed(
    strategy: Strategy | None, name: str, stages: Mapping[str, Stage], routing: Routing
) -> tuple[list[str], Tensor] | None:
    """Members of a strategy and their weights for each test prompt [n, members]; None if it does not route.

    Experts have the names that they have at rate 1.

    Args:
        strategy: The strategy; None: it has other clusters.
        name: Its name.
        stages: Of its branch.
        routing: Of the test prompts.
    """
    if strategy is None or not strategy.routed:
        return None
    answers = _named_plainly(name, strategy, stages)
    return answers.members(routing), answers.weights(routing)


def served(
    name: str, strategy: Strategy, stages: Mapping[str, Stage]
) -> tuple[Strategy, dict[str, Any]]:
    """The strategy as the exported ensemble answers by it, and what `ensemble.json` says of it.

    Experts have the names that they have at rate 1 there.

    Args:
        name: Of the strategy.
        strategy: One that is `exported`.
        stages: Of its branch.
    """
    answers = _named_plainly(name, strategy, stages)
    facts: dict[str, Any] = {SERVED: key_fields(answers)}
    if found := verdicts(name, strategy, stages):
        measure = read_pairs(stages[f"paired-{name}"].folder).measure
        facts[GATE] = {"measure": measure, "clusters": [asdict(verdict) for verdict in found]}
    return answers, facts


def _named_plainly(name: str, strategy: Strategy, stages: Mapping[str, Stage]) -> Strategy:
    """The strategy with what dev decided, and at rate 1, so that its experts are `expert-0` and so on."""
    answers: Any = decided(name, strategy, stages)
    plain_weights = type(answers).weights is Elrea.weights
    if isinstance(answers, Elrea) and isinstance(answers, Regrouped) and plain_weights:
        # With the ensemble's features, clusters and router, which are its own, it is ELREA.
        return Elrea(answers.top_k, answers.base_share)
    plain: Strategy = replace(answers, rate=1.0) if hasattr(answers, "rate") else answers
    return plain
