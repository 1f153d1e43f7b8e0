"""Shows what a command has made when it ends: the results of a run, or the one stage of `until=`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from elrea.method.clustering.assignment import QUALITY
from elrea.pipeline.steps.clusters import Clusters
from elrea.reporting.progress import say, screen
from elrea.reporting.run_tables import categorised, quality_in_words
from elrea.reporting.terminal import (
    SHARPER,
    cluster_figures,
    free_text_table,
    notices,
    results_table,
    wrapped,
)
from elrea.store.files import read_json

if TYPE_CHECKING:
    from elrea.pipeline.graph import Graph
    from elrea.reporting.report import Report

log = logging.getLogger(__name__)


def show_results(report: Report, folder: Path, sync_line: str) -> None:
    """Prints the results of a run, what is to be said of them, and where everything is.

    Args:
        report: Of the run.
        folder: Of the run.
        sync_line: The command that sends it to W&B; empty if nothing is left to send.
    """
    out = screen()
    free = not all(example.choices for example in report.test)  # then the loss says most
    caption = f"{report.name}: " if report.name else ""
    caption += f"{report.data}; {len(report.test):,} test items; seed {report.seed}"
    out.print(results_table(report.strategies, "Results", caption, loss=free))
    if table := free_text_table(report.strategies):
        out.print(table)
    if free and report.sharper:
        say(out, wrapped(SHARPER))
    for line in notices(report):
        say(out, wrapped(line))
        log.info("%s", line)
    for line in report.left_out:
        log.info("%s", line)
    say(out, f"Everything is in {os.path.relpath(folder)}")
    if sync_line:
        say(out, f"To send this run to W&B:\n  {sync_line}")


def show_stage(graph: Graph, name: str, store: str) -> None:
    """Prints that the last stage of `until=` is made; of clusters, their figures too.

    Args:
        graph: The run's stages.
        name: Of the stage.
        store: Where the stages are, as the config names it.
    """
    out, node = screen(), graph.nodes[name]
    if isinstance(node.step, Clusters):
        path = node.stage.folder / QUALITY
        found = read_json(path)
        words = quality_in_words(found, categorised(node.context.experiment.corpus.train))
        out.print(cluster_figures(found["sizes"], words))
        say(out, f"All figures of the clusters are in {os.path.relpath(path)}")
    say(out, f"{name} is made, in the store {store}; until={name} ends here")
