"""Prints the plan of a run: every stage with its state, and with plan=true a forecast of tokens and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elrea.errors import ConfigError, NotHere
from elrea.pipeline.forecast import Sizes, forecast
from elrea.pipeline.graph import Graph, Node, graph_of
from elrea.reporting.progress import say, screen
from elrea.reporting.terminal import forecast_table, plan_table
from elrea.store.stage import Store

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from elrea.pipeline.experiment import Experiment
    from elrea.pipeline.run import Pipeline


def show(pipeline: Pipeline, forecasts: bool) -> None:
    """Prints the plan of a run whose data and backbone are on this machine.

    Args:
        pipeline: Of the run.
        forecasts: Whether to print the forecast too.

    Raises:
        ElreaError: The forecast cannot be made, or the tokenizer cannot express the data.
    """
    experiment, out = pipeline.experiment, screen()
    say(out, f"Plan: {experiment.corpus.title}, seed {experiment.seed}")
    out.print(plan_table(_rows(pipeline.graph, keys=True), ""))
    if forecasts:
        if experiment.backbone.here:
            pipeline.check_data()
        train, test = len(experiment.corpus.train), len(experiment.corpus.test)
        sizes = (
            Sizes.measure(experiment)
            if experiment.backbone.here
            else Sizes.upper_bounds(experiment, train, test)
        )
        clusters = pipeline.graph.branches[0].clusters
        out.print(forecast_table(forecast(experiment, sizes, clusters)))


def show_ahead(cfg: DictConfig, experiment: Experiment, missing: NotHere) -> None:
    """Prints the plan of a run whose data or backbone is not on this machine, without downloading it.

    Args:
        cfg: The composed config.
        experiment: The run; its corpus is empty if the data is missing.
        missing: The error that names what is missing.

    Raises:
        ElreaError: The forecast cannot be made.
    """
    sizes_here = [len(experiment.corpus.train), len(experiment.corpus.test)]
    expected = sizes_here if all(sizes_here) else list(cfg.data.get("expected") or sizes_here)
    if len(expected) != 2 or min(expected) < 1:
        raise ConfigError(
            f"{missing}; to plan without it, add +data.expected=[<train>,<test>], the numbers of examples"
        )
    graph = graph_of(experiment, Store(cfg.store), here=False)
    graph.needed(cfg.until)
    out = screen()
    say(
        out,
        f"Plan: {experiment.corpus.name}, seed {experiment.seed}. {missing}: stages have no keys yet",
    )
    out.print(plan_table(_rows(graph, keys=False), ""))
    sizes = Sizes.upper_bounds(experiment, *expected)
    out.print(forecast_table(forecast(experiment, sizes, experiment.clustering.known_k())))


def _rows(graph: Graph, keys: bool) -> list[tuple[str, str, str]]:
    """Name, key and state of every stage."""
    rows = []
    for name, node in graph.rows:
        if not isinstance(node, Node):
            rows.append((name, "-", node))
        elif keys:
            rows.append((name, node.stage.key, "reused" if node.stage.done() else "to do"))
        else:
            rows.append((name, "-", "to do"))
    return rows
