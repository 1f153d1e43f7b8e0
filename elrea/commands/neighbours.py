"""Lists the training examples whose gradients are nearest to a prompt's.

elrea neighbours outputs/<day>/<time> "What is 2 + 2?"

A terminal shows the beginning of each example, a file or a pipe gets all of it, on one line.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elrea.commands.arguments import add_plugins, add_threads, device_of
from elrea.commands.exit import announce, one_line_errors
from elrea.commands.parser import Parser
from elrea.errors import ConfigError
from elrea.store.files import is_text

SHORTEST = 20
"""Columns for an example on a terminal that is too narrow for the table."""


@dataclass(frozen=True)
class Neighbour:
    """A training example near a prompt.

    Attributes:
        cosine: Of its feature and the prompt's, -1 to 1.
        id: Its id in the data.
        source: Its data source.
        cluster: The number of its cluster.
        text: Its instruction, on one line.
    """

    cosine: float
    id: str
    source: str
    cluster: int
    text: str


def neighbours(
    run: Path, prompt: str, k: int = 10, store: Path | None = None, *, threads: int | None = None
) -> list[Neighbour]:
    """The k training examples of a finished run that are nearest to a prompt, nearest first.

    Args:
        run: Folder of the run.
        prompt: An instruction, worded as in the training data.
        k: Number of examples.
        store: Folder of the run's stages; None: where its config says.
        threads: CPU threads; None: trainer.threads of the run, or as for `Ensemble.load`.

    Raises:
        ElreaError: The run is not finished, its data or store was moved, or the prompt has no gradient.
    """
    _check(prompt, k, store)
    from elrea.data.examples import Example
    from elrea.pipeline.assemble import experiment_of, strategy_of

    announce("reading the run's data and loading its backbone ...")
    experiment, configured = experiment_of(run)
    # Imported after the checks above and in experiment_of: these bring torch.
    from elrea.method.clustering.assignment import read_clusters
    from elrea.method.clustering.index import search
    from elrea.models.training.train import epoch_folders
    from elrea.pipeline.graph import clusters_of
    from elrea.store.stage import Store

    device = experiment.device
    replace(device, threads=threads or device.threads).apply(measure=True)
    there = Store(store or configured)
    context, stages = clusters_of(experiment, there)
    if not stages["clusters"].done():  # the run's own strategy may have clusters of other features
        own = replace(experiment, strategies={"own": strategy_of(run)})
        context, stages = clusters_of(own, there)
    for name, stage in stages.items():
        if not stage.done():
            raise ConfigError(
                f"{run}: its stage {name} is not in {stage.folder.parent}; call this in the folder where the run was "
                "started, or give --store"
            )
    epochs = epoch_folders(stages["base"].folder)
    query = context.features_of([Example("prompt", prompt, "", "prompt")], epochs)
    if not query.any():
        raise ConfigError("the prompt has no gradient to search by; give a longer one")
    clusters = stages["clusters"].folder
    examples, assignment = context.kept("train"), read_clusters(clusters)["assignment"].numpy()
    cosines, rows = search(clusters, query.numpy(), k)
    return [
        Neighbour(
            float(cosine),
            examples[row].id,
            examples[row].source,
            int(assignment[row]),
            " ".join(examples[row].instruction.split()),
        )
        for cosine, row in zip(cosines[0], rows[0], strict=True)
    ]


def _check(prompt: str, k: int, store: Path | None) -> None:
    """Refuses arguments that need no run to be refused."""
    if k < 1:
        raise ConfigError(f"k={k}: must be at least 1")
    if not is_text(prompt):
        raise ConfigError("the prompt is not UTF-8 text")
    if store is not None and not store.is_dir():
        raise ConfigError(f"--store {store}: no such folder")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    parser = Parser(
        prog="elrea neighbours",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a finished run, as outputs/<day>/<time>")
    parser.add_argument("prompt", help="an instruction")
    parser.add_argument("-k", type=int, default=10, help="number of examples (default: 10)")
    parser.add_argument(
        "--store", type=Path, help="folder of the run's stages (default: where the run had it)"
    )
    add_threads(parser)
    add_plugins(parser)
    given = parser.parse_args(argv)
    device_of(given)
    nearest = neighbours(given.run, given.prompt, given.k, given.store, threads=given.threads)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(table(nearest, width)))


def table(nearest: Sequence[Neighbour], width: int | None = None) -> list[str]:
    """The lines of the table, with the head.

    Args:
        nearest: At least one example.
        width: Columns that the lines are cut to; None shows the examples whole.
    """
    from elrea.reporting.cells import columns, padded, shortened

    source = max(len("source"), *(columns(one.source) for one in nearest))
    lines = [f"{'cosine':>7}  cluster  {'source':{source}}  example"]
    for one in nearest:
        start = f"{one.cosine:7.3f}  {one.cluster:7}  {padded(one.source, source)}  "
        end, text = f"  ({one.id})", one.text
        if width is not None:
            text = shortened(text, max(SHORTEST, width - columns(start) - columns(end)))
        lines.append(start + text + end)
    return lines


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
