"""Prints the plan of a run: every stage with its state, and with plan=true a forecast of tokens and memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from typing import TYPE_CHECKING

from elrea.errors import ConfigError, ElreaError, NotCausal, NotHere
from elrea.pipeline.forecast import forecast
from elrea.pipeline.graph import Graph, Node, graph_of
from elrea.pipeline.sizes import Sizes
from elrea.reporting.progress import duration, say, screen
from elrea.reporting.terminal import forecast_table, plan_table, wrapped
from elrea.store.stage import Store

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from elrea.pipeline.experiment import Experiment
    from elrea.pipeline.ladder import Ladder
    from elrea.pipeline.run import Pipeline


def show(pipeline: Pipeline, forecasts: bool, until: str | None = None) -> None:
    """Prints the plan of a run whose data and backbone are on this machine.

    Args:
        pipeline: Of the run.
        forecasts: Whether to print the forecast too.
        until: The last stage to list and time; None: all.

    Raises:
        ElreaError: The forecast cannot be made, or the tokenizer cannot express the data.
    """
    experiment, out = pipeline.experiment, screen()
    say(out, wrapped(f"Plan: {experiment.corpus.title}, seed {experiment.seed}"))
    if details := experiment.corpus.details:
        say(out, wrapped(f"Data: {details}"))
    if not forecasts:
        out.print(plan_table(_rows(pipeline.graph, until, keys=True), ""))
        return
    if experiment.backbone.here:
        pipeline.check_data(until)
    train, test = len(experiment.corpus.train), len(experiment.corpus.test)
    sizes = (
        Sizes.measure(experiment)
        if experiment.backbone.here
        else Sizes.upper_bounds(experiment, train, test)
    )
    clusters = pipeline.graph.branches[0].clusters
    times, total = _times(pipeline, sizes, until)
    out.print(plan_table(_rows(pipeline.graph, until, keys=True), "", times))
    rows = forecast(experiment, sizes, clusters)
    title = f"Expected of the whole run; time up to {until}" if until else "Expected"
    out.print(forecast_table([*rows, ("time", total)] if total else rows, title))


def _times(
    pipeline: Pipeline, sizes: Sizes, until: str | None
) -> tuple[dict[str, float | None], str]:
    """Expected seconds of every stage that is to do, from a measured step of each kind, and the forecast's row of the
    whole time, or why there is none; both are empty if there is nothing to do."""
    from elrea.pipeline import timing

    graph = pipeline.graph
    needed = graph.needed(until)
    missing = [n for name, n in graph.nodes.items() if name in needed and not n.stage.done()]
    if not missing:
        return {}, ""
    rates = _rates(pipeline, missing[0])
    if isinstance(rates, str):
        return {}, rates
    clusters = graph.branches[0].clusters
    times = {node.name: timing.seconds(node, rates, sizes, clusters) for node in missing}
    known = [seconds for seconds in times.values() if seconds is not None]
    about = "about" if len(known) == len(times) else "at least"
    return (
        times,
        f"{about} {duration(sum(known))} for the stages, by measured steps",
    )


def ladder_time(pipeline: Pipeline, ladder: Ladder) -> str:
    """Expected time of a verdict's parts: training, and answering dev with each of them; or why it is not known.

    Args:
        pipeline: On all of the data.
        ladder: The parts.

    Raises:
        ElreaError: The backbone or the data cannot be read.
    """
    from elrea.pipeline import timing
    from elrea.pipeline.steps.answers import Answers
    from elrea.pipeline.steps.paired import DevComparison
    from elrea.pipeline.steps.scores import Scores

    graph = pipeline.graph
    nodes = list(graph.nodes.values())
    rates = _rates(pipeline, nodes[0])
    if isinstance(rates, str):
        return f"Expected time: {rates}"
    sizes, clusters = Sizes.measure(pipeline.experiment), graph.branches[0].clusters
    times = [
        timing.seconds(node, rates, sizes, clusters)
        for node in nodes
        if isinstance(node.step, (Scores, Answers, DevComparison))
    ]
    training = duration(rates["train"] * ladder.spent * ladder.elrea)
    if not times:  # what is to be scored follows from the number of clusters
        return f"Expected time: about {training} of training, by measured steps; for dev it is not known"
    least = "at least " if None in times else ""
    dev = duration(len(ladder.parts) * sum(each or 0.0 for each in times))
    return (
        f"Expected time: about {training} of training and {least}{dev} for dev, by measured steps"
    )


def _rates(pipeline: Pipeline, first: Node) -> Mapping[str, float] | str:
    """From a measured step of each kind (`timing.measure`), or why there are none. `first`: a stage that is to do."""
    from elrea.pipeline import timing
    from elrea.pipeline.run import memory_explained

    experiment, graph = pipeline.experiment, pipeline.graph
    if not experiment.backbone.here:
        return "not measured: the backbone is not on this machine"
    if experiment.device.devices > 1:
        return "not measured with several devices"
    context, clusters = graph.branches[0].context, graph.branches[0].clusters
    parts = (branch.context for branch in graph.branches)
    clustered = any(part.requirements.clustered and timing.as_measured(part) for part in parts)
    stage = timing.rates_stage(context, pipeline.store, clusters, clustered=clustered)
    if not stage.done():
        say(screen(), "Measuring one step of each kind of work, for the expected times")
    try:
        with memory_explained("a measured step", first.step):
            stage.run(partial(timing.measure, context, clusters, clustered=clustered))
    except NotCausal:  # no machine can run this plan
        raise
    except ElreaError as error:  # the plan is worth showing without times
        return f"not measured: {error}"
    return timing.read_rates(stage)


def show_ahead(cfg: DictConfig, experiment: Experiment, missing: NotHere) -> None:
    """Prints the plan of a run whose data or backbone is not on this machine, without downloading it.

    Args:
        cfg: The composed config.
        experiment: The run; its corpus is empty if the data is missing.
        missing: The error that names what is missing.

    Raises:
        ElreaError: The forecast cannot be made.
    """
    with suppress(NotHere):
        experiment.backbone.check()
    sizes_here = [len(experiment.corpus.train), len(experiment.corpus.test)]
    expected = sizes_here if all(sizes_here) else list(cfg.data.get("expected") or sizes_here)
    if len(expected) != 2 or min(expected) < 1:
        raise ConfigError(
            f"{missing}; to plan without it, add +data.expected=[<train>,<test>], the numbers of examples"
        )
    graph = graph_of(experiment, Store(cfg.store), here=False)
    rows = _rows(graph, cfg.until, keys=False)
    out = screen()
    line = f"Plan: {experiment.corpus.name}, seed {experiment.seed}. {missing}: stages have no keys yet"
    say(out, wrapped(line))
    out.print(plan_table(rows, ""))
    sizes = Sizes.upper_bounds(experiment, *expected)
    out.print(forecast_table(forecast(experiment, sizes, experiment.clustering.known_k())))


def _rows(graph: Graph, until: str | None, keys: bool) -> list[tuple[str, str, str]]:
    """Name, key and state of every stage up to `until`.

    Raises:
        ConfigError: As `Graph.needed`.
    """
    rows, needed = [], graph.needed(until)
    for name, node in graph.rows:
        if not isinstance(node, Node):
            if until is None or (until not in graph.nodes and fnmatch(until, name)):
                rows.append((name, "-", node))
        elif name not in needed:
            continue
        elif keys:
            rows.append((name, node.stage.key, "reused" if node.stage.done() else "to do"))
        else:
            rows.append((name, "-", "to do"))
    return rows
