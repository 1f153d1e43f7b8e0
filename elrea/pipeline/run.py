"""Makes the stages of an experiment that are not in the store yet, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from elrea.errors import ConfigError, ElreaError
from elrea.models.device import is_out_of_memory
from elrea.models.log import SILENT, Log
from elrea.pipeline.graph import Builder, Graph, Node
from elrea.pipeline.steps.adapters import Adapter, BaseAdapter
from elrea.pipeline.steps.features import FeaturesStep

if TYPE_CHECKING:
    from elrea.pipeline.experiment import Experiment
    from elrea.pipeline.step import Step
    from elrea.store.stage import Store


class Pipeline:
    """One experiment against one store.

    Args:
        experiment: What to do.
        store: Where stages are kept.
        log: Listens to the work.

    Attributes:
        experiment: What to do, all strategies in the order of the table.
        graph: The stages, as far as they are known now.
        reused: By stage, whether it was in the store before.
    """

    def __init__(self, experiment: Experiment, store: Store, log: Log = SILENT) -> None:
        self.experiment, self.store = experiment, store
        experiment.backbone.check()
        self._builder = Builder(experiment, log)
        self.graph: Graph = self._builder.graph(store)
        self.reused: dict[str, bool] = {}
        self._rehearsed = False

    def check(self, until: str | None) -> None:
        """Refuses what cannot be made, before anything is.

        Raises:
            ConfigError: There is no stage `until`, or one that is missing needs the whole backbone, which is cut up.
            ElreaError: Data or `adapter.start` do not fit the backbone.
        """
        needed, experiment = self.graph.needed(until), self.experiment
        if experiment.backbone.here:  # a plan downloads nothing
            self.graph.branches[0].context.check()
        if experiment.device.strategy != "sharded":
            return
        if experiment.backbone.quantise:
            raise ConfigError(
                "trainer.strategy=sharded cuts up plain weights: say backbone.quantise=null, or trainer=ddp"
            )
        for name, node in self.graph.nodes.items():
            if name in needed and not node.step.sharded and not node.stage.done():
                raise ConfigError(
                    f"trainer.strategy=sharded trains adapters and nothing else, and {name} needs the whole backbone: "
                    "say until=base (or until=expert-0, ...), and make the rest with trainer=auto, on the CPU if need "
                    "be"
                )

    def check_data(self, until: str | None = None) -> None:
        """Refuses data that the tokenizer cannot express, if anything is to be made of it.

        Raises:
            DataError: See `elrea.data.expressible.check`.
        """
        nodes = (self.graph.nodes[name] for name in self.graph.needed(until))
        if not all(node.stage.done() for node in nodes):
            _ = self.graph.branches[0].context.losses

    def run(
        self,
        until: str | None = None,
        on_stages: Callable[[Mapping[str, str]], object] = lambda keys: None,
    ) -> None:
        """Makes what is missing.

        Args:
            until: The last stage to make, with all upstream of it; None makes all.
            on_stages: Told all stages' keys by name once more of them are known: how many experts there are may be
                open until the clusters are made.

        Raises:
            ConfigError: There is no stage `until`.
            DataError: The tokenizer cannot express the data.
            ElreaError: What went wrong while a stage was made.
        """
        self.check_data(until)
        made: Graph | None = None
        if not self.experiment.backbone.here:
            self.graph.branches[0].context.check()
        while made is not self.graph:
            made = self.graph
            needed = made.needed(until)
            left = [name for name in made.nodes if name in needed and name not in self.reused]
            while left:
                name = self._next(left)
                left.remove(name)
                node = made.nodes[name]
                self._rehearse(name, node)
                with memory_explained(name, node.step):
                    node.stage.run(partial(node.step.make, node.context, node.upstream))
                self.reused[name] = node.stage.reused
                if made.is_outdated():  # the clusters tell how many experts there are
                    self.graph = self._builder.graph(self.store)
                    on_stages(self.graph.keys)
                    break

    def _next(self, left: Sequence[str]) -> str:
        """The first stage that can be made. One that another process is making is left until nothing else is, unless
        this is one of several processes, which have to take the stages in the same order."""
        if self.experiment.device.devices > 1:
            return left[0]
        for name in left:
            node = self.graph.nodes[name]
            made = self.reused.keys() >= self.graph.upstream(name).keys()
            if made and self._is_final(node) and not node.stage.busy():
                return name
        return left[0]

    def _is_final(self, node: Node) -> bool:
        """Whether it stays as it is when its clusters are made, which may be fewer than was asked for: an adapter of
        rank C·r does not, though it reads no clusters."""
        if not isinstance(node.step, Adapter) or isinstance(node.step, BaseAdapter):
            return True
        (branch,) = (each for each in self.graph.branches if each.context is node.context)
        if (clusters := branch.stages.get("clusters")) is None:
            return True
        made = {
            self.graph.nodes[name].stage.key for name in self.reused if name in self.graph.nodes
        }
        return clusters.key in made or node.step.name in node.context.requirements.adapters(None)

    def _rehearse(self, name: str, node: Node) -> None:
        """Tries everything on two rows before the first long stage that is not in the store."""
        if self._rehearsed or not isinstance(node.step, (Adapter, FeaturesStep)):
            return
        if not node.stage.folder.exists():
            from elrea.pipeline.rehearsal import rehearse

            with memory_explained(name, node.step):
                rehearse(self._builder.contexts, self.store)
            self._rehearsed = True


@contextmanager
def memory_explained(name: str, step: Step) -> Iterator[None]:
    """Makes one line of torch's out-of-memory errors.

    Args:
        name: Of the stage that is being made.
        step: What it is.

    Raises:
        ElreaError: Memory ran out; which setting to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ElreaError(
            f"{name}: out of memory; lower {step.oom_advice}; the same command then resumes from here"
        ) from error
