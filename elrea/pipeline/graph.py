"""The stages of an experiment as one graph: their order, their keys, and what each of them is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from elrea.errors import ConfigError, did_you_mean
from elrea.method.clustering.assignment import read_clusters
from elrea.method.ensemble.strategy import Regrouped
from elrea.models.log import SILENT, Log
from elrea.pipeline.context import Context
from elrea.pipeline.step import Step
from elrea.pipeline.steps.adapters import Adapter, BaseAdapter
from elrea.pipeline.steps.answers import Answers
from elrea.pipeline.steps.clusters import Clusters
from elrea.pipeline.steps.features import FeaturesForDev, FeaturesForTest, FeaturesStep
from elrea.pipeline.steps.gates import Gates
from elrea.pipeline.steps.paired import DevComparison
from elrea.pipeline.steps.router import LearnedRouterStep, LearnedRouting
from elrea.pipeline.steps.scores import Scores
from elrea.store.stage import Stage, Store

if TYPE_CHECKING:
    from elrea.pipeline.experiment import Experiment

ORDER: tuple[type[Step], ...] = (
    BaseAdapter, FeaturesStep, Clusters, LearnedRouterStep, LearnedRouting, Adapter, Gates, FeaturesForDev,
    DevComparison, FeaturesForTest, Answers, Scores,
)  # fmt: skip
"""Every kind of step, in the order of the work: each comes after all that it reads."""


@dataclass(frozen=True)
class Node:
    """One stage of one experiment: a step, and its key.

    Attributes:
        name: In the plan; a stage of a part begins with the part's name, as "instruction_embedding/clusters".
        step: What it is.
        context: Of the experiment, or of the part.
        stage: Its place in the store.
        upstream: The stages that it reads, by the names that its step knows.
    """

    name: str
    step: Step
    context: Context
    stage: Stage
    upstream: Mapping[str, Stage]


@dataclass(frozen=True)
class Branch:
    """The stages of the experiment, or of one part: of a strategy that clusters by features of its own.

    Attributes:
        context: What its steps share.
        clusters: C; None while it is not known.
        stages: By the names that its steps know; shared with other branches where the keys are equal.
    """

    context: Context
    clusters: int | None
    stages: dict[str, Stage] = field(default_factory=dict)


@dataclass
class Graph:
    """All stages of a run.

    Attributes:
        nodes: By name, in the order of the work.
        rows: The plan: every name in order with its node, or with its state where it cannot be listed yet.
        branches: The experiment's own first, then its parts'.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    rows: list[tuple[str, Node | str]] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)

    @property
    def stages(self) -> dict[str, Stage]:
        """Every stage by name."""
        return {name: node.stage for name, node in self.nodes.items()}

    @property
    def keys(self) -> dict[str, str]:
        """Every stage's key by name."""
        return {name: node.stage.key for name, node in self.nodes.items()}

    def is_outdated(self) -> bool:
        """Whether clusters that have been made since are of another number than was known."""
        return any(_found(branch.context, branch) != branch.clusters for branch in self.branches)

    def upstream(self, name: str) -> dict[str, str]:
        """The stages that one stage reads: key by the name in the plan."""
        names = {node.stage.key: other for other, node in self.nodes.items()}
        keys = [stage.key for stage in self.nodes[name].upstream.values()]
        return {names[key]: key for key in keys}

    def needed(self, until: str | None) -> set[str]:
        """Names of the stages that a run makes which ends with `until`: that one, and all upstream of it.

        Raises:
            ConfigError: No stage has that name, and none that is still to come can have it.
        """
        if until is None:
            return set(self.nodes)
        if until in self.nodes:
            return self.with_upstream([until])
        self._check(until)
        # Clusters that are made tell how many experts there are.
        clusters = [name for name, node in self.nodes.items() if isinstance(node.step, Clusters)]
        return self.with_upstream(clusters)

    def with_upstream(self, names: Sequence[str]) -> set[str]:
        """These stages, and all upstream of them."""
        found: set[str] = set()
        left = list(names)
        while left:
            if (name := left.pop()) not in found:
                found.add(name)
                left += self.upstream(name)
        return found

    def _check(self, until: str) -> None:
        names = [name for name, _ in self.rows]
        still_open = [name for name, node in self.rows if not isinstance(node, Node)]
        if not any(fnmatch(until, pattern) for pattern in still_open):
            near = did_you_mean(until, names)
            raise ConfigError(f"until={until}: no such stage{near} (there is: {', '.join(names)})")


def graph_of(experiment: Experiment, store: Store, here: bool = True) -> Graph:
    """The graph of an experiment; what is made already tells how many clusters there are, where that was open.

    Args:
        experiment: What to do.
        store: Where stages are kept.
        here: Whether data and backbone are on this machine; else keys mean nothing.

    Raises:
        ElreaError: Settings that cannot work.
    """
    return Builder(experiment, here=here).graph(store)


def clusters_of(experiment: Experiment, store: Store) -> tuple[Context, dict[str, Stage]]:
    """An experiment's stages up to the clusters by name, whatever its strategies; and what their steps share.

    Where the store has no such clusters, those of the first of its strategies that has clusters of its own there.
    """
    context, stages = Context(experiment), dict[str, Stage]()
    steps = (
        *BaseAdapter.of(context, None),
        FeaturesStep.for_split(context, "train"),
        *Clusters.always(),
    )
    for step in steps:
        upstream = {name: stages[name] for name in step.upstream}
        stages[step.name] = store.stage(step.kind, step.version, step.inputs(context, upstream))
    if not stages["clusters"].done():
        for branch in graph_of(experiment, store).branches[1:]:
            if "clusters" in branch.stages and branch.stages["clusters"].done():
                return branch.context, {name: branch.stages[name] for name in stages}
    return context, stages


class Builder:
    """Makes the graphs of one experiment, whose contexts (with the loaded backbone) they share."""

    def __init__(self, experiment: Experiment, log: Log = SILENT, here: bool = True) -> None:
        parts = {
            name: strategy
            for name, strategy in experiment.strategies.items()
            if isinstance(strategy, Regrouped)
        }
        own = {name: s for name, s in experiment.strategies.items() if name not in parts}
        main = Context(replace(experiment, strategies=own), log, here=here)
        self.contexts = [main]
        for name, strategy in parts.items():
            features, epochs = strategy.grouped_by(experiment.features, experiment.training.epochs)
            training = experiment.training
            if epochs != training.epochs:  # an early stop would leave their number open
                training = replace(training, early_stop=None)
            elif training.early_stop:
                features.check(None)
            router = experiment.router
            if type(features) is not type(experiment.features):
                router = router.by_gradient()  # these features route the prompts too
            part = replace(
                experiment, features=features, strategies={name: strategy}, training=training,
                clustering=strategy.clustering or experiment.clustering, router=strategy.router or router,
            )  # fmt: skip
            self.contexts.append(
                Context(part, log, here=here, part=name, within=main, base_epochs=epochs)
            )

    def graph(self, store: Store) -> Graph:
        """The graph as far as it is known now."""
        graph = Graph()
        for context in self.contexts:
            self._add(graph, context, store)
        return graph

    def _add(self, graph: Graph, context: Context, store: Store) -> None:
        branch = Branch(context, context.experiment.clustering.known_k())
        known = {node.stage.key: node.stage for node in graph.nodes.values()}
        prefix = f"{context.part}/" if context.part else ""
        for kind in ORDER:
            for step in kind.of(context, branch.clusters):
                upstream = {name: branch.stages[name] for name in step.upstream}
                inputs = step.inputs(context, upstream)
                stage = store.stage(step.kind, step.version, inputs)
                if stage.key in known:  # a part shares what does not depend on its features
                    branch.stages[step.name] = known[stage.key]
                    continue
                branch.stages[step.name] = stage
                node = Node(prefix + step.name, step, context, stage, upstream)
                graph.nodes[node.name] = node
                graph.rows.append((node.name, node))
            for name, state in kind.later(context, branch.clusters):
                graph.rows.append((prefix + name, state))
            if kind is Clusters:
                branch = replace(branch, clusters=_found(context, branch))
        graph.branches.append(branch)


def _found(context: Context, branch: Branch) -> int | None:
    """C as the finished clusters have it; before, as the settings do."""
    stage = branch.stages.get("clusters")
    if context.here and stage is not None and stage.done():
        return len(read_clusters(stage.folder)["centroids"])
    return branch.clusters
