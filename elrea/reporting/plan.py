"""A run's plan on the screen: stage by stage what there is, and with plan=true what all of it will take."""

from __future__ import annotations

from omegaconf import DictConfig

from elrea.errors import ConfigError, NotHere
from elrea.method.clustering.points import known_k
from elrea.method.ensemble.requirements import Needs
from elrea.pipeline.experiment import Experiment
from elrea.pipeline.forecast import Sizes, forecast
from elrea.pipeline.run import Pipeline
from elrea.pipeline.until import check
from elrea.reporting.progress import say, screen
from elrea.reporting.summary import data_name
from elrea.reporting.terminal import forecast_table, plan_table

OPEN = [("expert-*", "-", "to do"), ("scores", "-", "to do")]
"""Stages of which there will be as many as clusters are found."""


def show(pipeline: Pipeline, last: bool) -> None:
    """The plan of a run whose data and backbone are here.

    Args:
        pipeline: Of the run.
        last: Whether it ends with its plan, to which a forecast then belongs.

    Raises:
        ElreaError: The forecast cannot be made.
    """
    it, plan = pipeline.it, pipeline.plan
    rows = [
        (name, stage.key, "reused" if stage.done() else "to do")
        for name, stage in pipeline.stages().items()
    ]
    out = screen()
    say(out, f"Plan: {data_name(pipeline)}, seed {it.seed}")
    out.print(plan_table([*rows, *([] if plan.counted else OPEN)], ""))
    if last:
        train, test = len(it.corpus.train), len(it.corpus.test)
        sizes = Sizes.of(it) if it.backbone.here else Sizes.at_most(it, train, test)
        out.print(forecast_table(forecast(it, sizes, plan.count)))


def show_ahead(cfg: DictConfig, it: Experiment, missing: NotHere) -> None:
    """The plan of a run whose data or backbone would have to be fetched first: nothing is.

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
            f"{missing}; with data.expected=[<train>,<test>] (their numbers) plan=true says what they take"
        )
    count = known_k(it.clustering)
    if cfg.until is not None:
        check(cfg.until, names(it, count), count is not None)
    out = screen()
    say(out, f"Plan: {it.corpus.name}, seed {it.seed}. {missing}: so stages have no keys yet")
    out.print(plan_table([(name, "-", "to do") for name in names(it, count)], ""))
    sizes = Sizes.at_most(it, *expected)
    out.print(forecast_table(forecast(it, sizes, count)))


def names(it: Experiment, clusters: int | None) -> list[str]:
    """The stages in the order of the work, while their keys are not known."""
    needs = Needs(it.strategies, it.lora, it.training, ())
    found = ["base"]
    if needs.clustered:
        found += ["features-train", "clusters"]
    found += needs.adapters(clusters)
    if clusters is None and needs.clustered:
        found.append("expert-*")
    if needs.routed:
        found.append("features-test")
    return [*found, "scores"]
