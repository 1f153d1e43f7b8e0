"""The plan of a run on the screen: every stage with its state, and with plan=true what all of it will take."""

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
    """Shows the plan of a run whose data and backbone are here.

    Args:
        pipeline: Of the run.
        forecasts: Whether to say what it will take.

    Raises:
        ElreaError: The forecast cannot be made.
    """
    it, out = pipeline.experiment, screen()
    say(out, f"Plan: {it.corpus.title}, seed {it.seed}")
    out.print(plan_table(_rows(pipeline.graph, keys=True), ""))
    if forecasts:
        train, test = len(it.corpus.train), len(it.corpus.test)
        sizes = Sizes.of(it) if it.backbone.here else Sizes.at_most(it, train, test)
        out.print(forecast_table(forecast(it, sizes, pipeline.graph.branches[0].clusters)))


def show_ahead(cfg: DictConfig, it: Experiment, missing: NotHere) -> None:
    """Shows the plan of a run whose data or backbone would have to be downloaded first: nothing is.

    Args:
        cfg: The composed config.
        it: What is to be done; its corpus is empty where the data is not here.
        missing: What is not here.

    Raises:
        ElreaError: The forecast cannot be made.
    """
    here = [len(it.corpus.train), len(it.corpus.test)]
    expected = here if all(here) else list(cfg.data.get("expected") or here)
    if len(expected) != 2 or min(expected) < 1:
        raise ConfigError(
            f"{missing}; with +data.expected=[<train>,<test>] (how many examples there are) plan=true says what the "
            "run will take"
        )
    graph = graph_of(it, Store(cfg.store), here=False)
    graph.needed(cfg.until)
    out = screen()
    say(out, f"Plan: {it.corpus.name}, seed {it.seed}. {missing}: so stages have no keys yet")
    out.print(plan_table(_rows(graph, keys=False), ""))
    sizes = Sizes.at_most(it, *expected)
    out.print(forecast_table(forecast(it, sizes, it.clustering.known_k())))


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
