"""Builds the `Report` of a finished run from the files of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.data.wording import wording_facts
from elrea.evaluation.text_figures import figures_of
from elrea.method.clustering.assignment import QUALITY, read_clusters
from elrea.method.ensemble.ensemble_folder import steered_facts
from elrea.method.ensemble.places import place_of
from elrea.method.ensemble.strategies.steered import Steered
from elrea.method.ensemble.strategy import (
    BASE,
    STEERED,
    Layerwise,
    Regrouped,
    Strategy,
    Voting,
    expert_names,
)
from elrea.method.features.to_disk import NAME, read_skipped
from elrea.method.routing.student import read_figures
from elrea.method.routing.weights import Routing
from elrea.models.training.steering import member_names
from elrea.models.training.train import epoch_folders
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.steps.decisions import decided
from elrea.pipeline.steps.members import member_folder, no_prompts, prompt_routing
from elrea.pipeline.steps.router import cosines_of
from elrea.pipeline.steps.scores import TOO_LONG, read_outcomes, read_shots
from elrea.reporting.decided_strategies import dev_gates_of, mixed, served
from elrea.reporting.fewer_clusters import fewer_clusters
from elrea.reporting.report import Grouping, MadeStage, Members, Report
from elrea.reporting.run_tables import categorised
from elrea.store.files import read_json
from elrea.store.manifest import versions

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.evaluation.scoring import Outcome
    from elrea.pipeline.graph import Branch, Graph
    from elrea.pipeline.run import Pipeline

CURVES = ("base", "adapter", "gates")
"""Kinds of stages that write a training curve."""


def report_of(pipeline: Pipeline, chosen: str, command: Sequence[str], name: str = "") -> Report:
    """Builds the report of a finished run.

    Args:
        pipeline: All of its stages are made.
        chosen: The strategy that `ensemble=` selects.
        command: The command line after `run.py`.
        name: The run's name; empty if it has none.

    Raises:
        StoreError: A stage's file cannot be read.
    """
    experiment, graph = pipeline.experiment, pipeline.graph
    main = graph.branches[0]
    requirements, stages = main.context.requirements, main.stages
    routing = prompt_routing(main.context, stages, main.clusters or 1)
    by_strategy, passes = _outcomes(graph)
    outcomes = {name: by_strategy[name] for name in experiment.strategies}
    tasks = [experiment.corpus.task_of(example) for example in experiment.corpus.test]
    scores = stages["scores"].folder
    grouping = _grouping(main) if requirements.clustered else None
    own = isinstance(experiment.strategies[chosen], Regrouped)
    exported = _branch_of(graph, chosen) if own else main
    return Report(
        chosen=chosen,
        command=command,
        data=experiment.corpus.title,
        backbone=experiment.backbone.shown_name,
        seed=experiment.seed,
        resamples=experiment.evaluation.resamples,
        test=experiment.corpus.test,
        tasks=tasks,
        train=len(experiment.corpus.train),
        left_out=[*experiment.corpus.left_out, *main.context.losses],
        outcomes=outcomes,
        strategies=_figures(graph, outcomes, passes, tasks),
        routing=routing if requirements.routed else None,
        gradient=_by_gradient(main, routing),
        router=read_figures(stages["router"].folder) if main.context.learned_router else {},
        grouping=grouping,
        curves=_curves(main) | _steered_curves(graph),
        stages=_stages(pipeline),
        dropped=main.context.encoded_train[1],
        too_long=read_json(scores / TOO_LONG),
        shots=read_shots(scores),
        skipped=_skipped(main),
        warnings=list(fewer_clusters(graph)),
        members=_members(exported, chosen) if _exports(exported, chosen) else None,
        versions=versions(),
        name=name,
        note=experiment.corpus.details,
        gates=dict(dev_gates_of(graph)),
        mean_logits=experiment.evaluation.mean_logits,
        mixed=mixed(main.context.experiment.strategies.get(chosen), chosen, stages, routing),
        own_clusters=_clusters_key(exported) != _clusters_key(main),
    )


def _clusters_key(branch: Branch) -> str:
    """The key of a branch's clusters; empty if it has none."""
    return branch.stages["clusters"].key if "clusters" in branch.stages else ""


def _figures(
    graph: Graph, outcomes: dict[str, Outcome], passes: dict[str, float], tasks: list[str]
) -> dict[str, dict[str, Any]]:
    """By strategy, its figures; with a `label` where tables call it by another name than its choice's."""
    experiment = graph.branches[0].context.experiment
    test, evaluation = experiment.corpus.test, experiment.evaluation
    figures = figures_of(
        outcomes, passes, experiment.seed, evaluation.resamples, tasks,
        [example.plain_text for example in test], [example.answer for example in test],
    )  # fmt: skip
    for branch in graph.branches:
        for name, strategy in branch.context.experiment.strategies.items():
            if strategy.label:
                figures[name]["label"] = strategy.label
    return figures


def _outcomes(graph: Graph) -> tuple[dict[str, Outcome], dict[str, float]]:
    """By strategy, its outcome and its mean number of forward passes per prompt."""
    outcomes: dict[str, Outcome] = {}
    passes: dict[str, float] = {}
    for branch in graph.branches:
        context, stages = branch.context, branch.stages
        scored = read_outcomes(stages["scores"].folder)
        routing = prompt_routing(context, stages, branch.clusters or 1)
        per_prompt = _routing_passes(branch)
        for name, strategy in context.experiment.strategies.items():
            outcomes[name] = scored[name]
            weights = decided(name, strategy, stages).weights(routing)
            mixed = _mixing_passes(strategy, weights, scored[name])
            passes[name] = mixed + per_prompt * bool(strategy.routed)
    return outcomes, passes


def _routing_passes(branch: Branch) -> float:
    """Cost of routing one prompt, in forward passes."""
    if branch.context.learned_router:
        return float(read_figures(branch.stages["router"].folder)["passes"])
    epochs = epoch_folders(branch.stages["base"].folder)
    return branch.context.experiment.features.passes(len(epochs))


def _mixing_passes(strategy: Strategy, weights: Tensor, outcome: Outcome) -> float:
    """Forward passes per prompt without routing: one per member with a non-zero weight, times the sampled texts.

    A voting strategy draws further texts only for the prompts whose answer is read from a text.
    """
    members = float((weights != 0).sum(1).float().mean())
    passes = 1.0 if isinstance(strategy, Layerwise) else members
    if isinstance(strategy, Voting) and (texts := outcome.text):
        passes *= 1 + (strategy.samples - 1) * (1 - texts.count(None) / len(texts))
    return passes


def _by_gradient(branch: Branch, routing: Routing) -> Routing | None:
    """Routing of the test prompts by gradient, to judge a learned router by; None if that is not compared."""
    context, stages = branch.context, branch.stages
    if not (context.learned_router and context.compares):
        return None
    cosines = cosines_of(stages["features-test"], stages["clusters"], len(routing.cosines))
    return Routing(cosines, context.experiment.router)


def _grouping(branch: Branch) -> Grouping:
    context, stages = branch.context, branch.stages
    kept = [example.source for example in context.kept("train")]
    clusters = read_clusters(stages["clusters"].folder)
    assignment = clusters["assignment"].tolist()
    sources = sorted(set(kept))
    counts = np.zeros((len(sources), len(clusters["centroids"])), dtype=int)
    for source, cluster in zip(kept, assignment, strict=True):
        if cluster >= 0:
            counts[sources.index(source), cluster] += 1
    return Grouping(
        sources, counts, assignment, kept, stages["features-train"].folder / NAME,
        read_json(stages["clusters"].folder / QUALITY), categorised(context.experiment.corpus.train),
    )  # fmt: skip


def _curves(branch: Branch) -> dict[str, list[dict[str, Any]]]:
    return {
        name: read_json(stage.folder / "curve.json")
        for name, stage in branch.stages.items()
        if stage.name in CURVES
    }


def _steered_curves(graph: Graph) -> dict[str, list[dict[str, Any]]]:
    """Curves of the adapters that clusters steer, by the stages' names."""
    return {
        f"{branch.context.part}/{STEERED}": read_json(branch.stages[STEERED].folder / "curve.json")
        for branch in graph.branches
        if STEERED in branch.stages
    }


def _exports(branch: Branch, chosen: str) -> bool:
    """Whether there is an ensemble that could answer: one that routes, or whose strategy needs no routing."""
    strategy = branch.context.experiment.strategies.get(chosen)
    return branch.context.requirements.routed or (strategy is not None and strategy.exported)


def _branch_of(graph: Graph, name: str) -> Branch:
    """The branch that has a strategy."""
    return next(b for b in graph.branches if name in b.context.experiment.strategies)


def _stages(pipeline: Pipeline) -> dict[str, MadeStage]:
    graph = pipeline.graph
    for node in graph.nodes.values():
        node.stage.done()  # reads the seconds of one that was made before the graph was built again
    needed = needed_stages(graph)
    return {
        name: MadeStage(
            node.stage.name, node.stage.key, round(node.stage.seconds, 3), pipeline.reused[name],
            graph.upstream(name), [strategy for strategy, names in needed.items() if name in names],
        )
        for name, node in graph.nodes.items()
    }  # fmt: skip


def needed_stages(graph: Graph) -> dict[str, set[str]]:
    """By strategy, the stages that it needs before it can answer: its members, its clusters, and what these read."""
    names = {node.stage.key: name for name, node in graph.nodes.items()}
    needed: dict[str, set[str]] = {}
    for branch in graph.branches:
        context, stages, clusters = branch.context, branch.stages, branch.clusters or 1
        for name, strategy in context.experiment.strategies.items():
            own = replace(context.requirements, strategies={name: strategy})
            steps = {*strategy.members(no_prompts(context, clusters)), *own.adapters(clusters)}
            steps |= {f"gates-{name}", f"paired-{name}"} | (
                {"clusters"} if own.clustered else set()
            )
            steps |= {"router"} if own.routed else set()
            needed[name] = graph.with_upstream(
                [names[stages[step].key] for step in steps if step in stages]
            )
    return needed


def _skipped(branch: Branch) -> dict[str, list[str]]:
    """By split, ids of examples without a feature. Test prompts have features only if gradients route them."""
    context, stages = branch.context, branch.stages
    splits = {
        "train": context.requirements.clustered,
        "test": context.requirements.routed and not context.learned_router,
    }
    return {
        split: read_skipped(stages[f"features-{split}"].folder) if taken else []
        for split, taken in splits.items()
    }


def _experts(branch: Branch, chosen: str, count: int) -> list[str]:
    """Stages of the experts to export, in order: the chosen strategy's, else those of the first that has any."""
    strategies = branch.context.experiment.strategies
    for name in sorted(strategies, key=lambda name: name != chosen):
        members = strategies[name].members(no_prompts(branch.context, count))
        found = [member for member in members if member.startswith("expert-")]
        if len(found) == count and all(stage in branch.stages for stage in found):
            return found
    return []


def _members(branch: Branch, chosen: str) -> Members:
    """Parts of the exported ensemble: base adapter and experts, or the members of the chosen strategy if it is one
    adapter that clusters steer."""
    experiment, stages = branch.context.experiment, branch.stages
    strategy = experiment.strategies.get(chosen)
    centroids = read_clusters(stages["clusters"].folder)["centroids"]
    if isinstance(strategy, Steered):
        folders = {
            name: member_folder(name, stages) for name in (BASE, *member_names(len(centroids)))
        }
    else:
        experts = _experts(branch, chosen, len(centroids))
        names = {BASE: BASE, **dict(zip(expert_names(len(experts)), experts, strict=True))}
        folders = {name: stages[stage].folder / "adapter" for name, stage in names.items()}
    own: Mapping[str, Any] = steered_facts(strategy) if isinstance(strategy, Steered) else {}
    routes = True
    if strategy is not None and strategy.exported:
        answers, own = served(chosen, strategy, stages)
        routes = answers.routed
        mixed = answers.members(no_prompts(branch.context, len(centroids)))
        folders |= {name: member_folder(name, stages) for name in mixed if name not in folders}
    learned, identity = branch.context.learned_router, experiment.backbone.identity()
    facts: Mapping[str, Any] = {
        "backbone": {
            "name": experiment.backbone.shown_name,
            "fingerprint": identity,
            **place_of(experiment.backbone, identity),
            "revision": experiment.backbone.revision,
            "max_length": experiment.backbone.max_length,
            "dtype": experiment.backbone.dtype,
            "quantise": experiment.backbone.quantise,
        },
        "use_chat_template": experiment.backbone.use_chat_template,
        "prompts": wording_facts(branch.context.prompter.wording),
        "options": experiment.corpus.options,
        "features": key_fields(experiment.features),
        "router": key_fields(experiment.router),
        **own,
    }
    return Members(
        folders,
        [] if learned or not routes else epoch_folders(stages["base"].folder),
        centroids,
        stages["router"].folder if learned and routes else None,
        facts,
    )
