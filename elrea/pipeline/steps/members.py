"""A strategy's members and routing, put together from the stages that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from elrea.method.ensemble.strategy import BACKBONE, Strategy, Tagging, trained_as
from elrea.method.ensemble.tags import tagged
from elrea.method.routing.student import read_cosines
from elrea.method.routing.weights import Routing
from elrea.models.lora import load
from elrea.pipeline.steps.decisions import decided
from elrea.pipeline.steps.router import cosines_of

if TYPE_CHECKING:
    from pathlib import Path

    from elrea.data.examples import Example
    from elrea.evaluation.scoring import Mixture
    from elrea.method.ensemble.joint import Adapter, JointModel
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage

ROUTED_BY = ("routing", "features-test")
"""Stages that prompts may be routed by: a learned router's cosines come first."""


def routed_by(context: Context) -> str:
    """The stage that this experiment's prompts are routed by."""
    return ROUTED_BY[0] if context.learned_router else ROUTED_BY[1]


def no_prompts(context: Context, clusters: int) -> Routing:
    """A routing of no prompt, to ask a strategy for its members' names."""
    return Routing(
        torch.empty(0, clusters), context.experiment.router, [], context.requirements.sources
    )


def member_adapter(name: str, upstream: Mapping[str, Stage]) -> Adapter | None:
    """A finished adapter by its member's name; None for the bare backbone."""
    return None if name == BACKBONE else load(member_folder(name, upstream))


def member_folder(name: str, upstream: Mapping[str, Stage]) -> Path:
    """PEFT folder of a member: its stage's, or that of a cluster which steers the stage's adapter."""
    stage = upstream[trained_as(name)]
    return stage.folder / ("adapter" if trained_as(name) == name else name)


def prompt_routing(context: Context, upstream: Mapping[str, Stage], clusters: int) -> Routing:
    """How near the test prompts are to the clusters; all cosines are 0 where no strategy asks.

    Args:
        context: Of the experiment.
        upstream: Stages by name; of "routing" and "features-test" the first that is there counts.
        clusters: C.
    """
    sources = [example.source for example in context.experiment.corpus.test]
    if "routing" in upstream:
        cosines = read_cosines(upstream["routing"].folder)
    elif "features-test" in upstream:
        cosines = cosines_of(upstream["features-test"], upstream["clusters"], len(sources))
    else:
        cosines = torch.zeros(len(sources), clusters)
    return Routing(cosines, context.experiment.router, sources, context.requirements.sources)


def prompts_of(
    strategy: Strategy, context: Context, upstream: Mapping[str, Stage], clusters: int
) -> Sequence[Example]:
    """The test examples as a strategy's members read them; arguments as for `prompt_routing`."""
    test = context.experiment.corpus.test
    if not isinstance(strategy, Tagging):
        return test
    nearest = prompt_routing(context, upstream, clusters).cosines.argmax(dim=1).tolist()
    return tagged(test, strategy.tag, nearest)


def prompt_mixtures(
    context: Context, upstream: Mapping[str, Stage], names: Sequence[str], clusters: int
) -> tuple[JointModel, dict[str, Mixture]]:
    """One joint model of the members of some strategies, and how each of them mixes the test prompts."""
    from elrea.evaluation.scoring import mixtures
    from elrea.method.ensemble.gates import read_gates

    given = context.experiment.strategies
    strategies: dict[str, Strategy] = {n: decided(n, given[n], upstream) for n in names}
    return mixtures(
        strategies, prompt_routing(context, upstream, clusters), context.backbone.model,
        lambda name: member_adapter(name, upstream),
        lambda name: read_gates(stage.folder) if (stage := upstream.get(f"gates-{name}")) else {},
    )  # fmt: skip
