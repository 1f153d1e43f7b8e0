"""What a run's strategies take in training: their adapters, and the passes over the training tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elrea.method.ensemble.requirements import Requirements
from elrea.method.ensemble.strategy import BASE, Regrouped
from elrea.pipeline.context import Context
from elrea.pipeline.steps.members import no_prompts

if TYPE_CHECKING:
    from elrea.method.ensemble.strategy import AdapterSpec
    from elrea.pipeline.experiment import Experiment


@dataclass(frozen=True)
class Passes:
    """Work on the training examples, in passes over all of them; one is a forward and a backward pass.

    Attributes:
        whole: Trainings' passes over prompts and responses.
        prompts: Features' passes over the prompts alone; a forward pass without a backward one is half a pass.
    """

    whole: float
    prompts: float

    def tokens(self, train: int, prompts: int) -> float:
        """Passes x tokens.

        Args:
            train: Tokens of all training prompts and responses.
            prompts: Tokens of all training prompts.
        """
        return self.whole * train + self.prompts * prompts


def passes(experiment: Experiment, clusters: int, *, alone: bool = False) -> Passes:
    """What the strategies of a run need between them; stages that they share count once.

    A learned router, and scoring, are not in it.

    Args:
        experiment: The run; of its corpus, only the sources of the training examples are read.
        clusters: C, of the run's clusters.
        alone: Leave out the run's base adapter, which every run trains, unless a strategy needs it.

    Raises:
        ConfigError: Settings that cannot work.
    """
    sources = experiment.corpus.train_sources
    needs, parts = requirements(experiment, sources, clusters)
    first, features = experiment.training.epochs, experiment.features
    specs = [*needs.adapters(clusters).values()]
    specs += [spec for own in parts.values() for spec in own.values()]
    gates = [spec for spec, _ in needs.gates(clusters).values()]
    whole = sum(_once(specs, sources)) + sum(spec.epochs for spec in gates)
    grouped = [(features, first)] * needs.clustered
    for name, own in parts.items():
        strategy = experiment.strategies[name]
        clustered = strategy.routed or any(spec.clustered for spec in own.values())
        if clustered and isinstance(strategy, Regrouped):
            found = strategy.grouped_by(features, first)
            grouped += [found] * (found not in grouped)
    bases = {epochs for used, epochs in grouped if used.from_base}
    nobody = no_prompts(Context(experiment), clusters)
    members = [m for s in experiment.strategies.values() for m in s.members(nobody)]
    if not alone or BASE in members or any(spec.from_base for spec in specs):
        bases.add(first)
    taken = sum(used.passes(max(1, epochs)) for used, epochs in grouped)
    return Passes(whole + sum(bases), taken / 2)


def _once(specs: Iterable[AdapterSpec], sources: Sequence[str]) -> Iterable[int]:
    """Epochs of trainings on all examples: clusters have them all between them, and so have sources."""
    return (spec.epochs for spec in specs if stands_for_all(spec, sources))


def stands_for_all(spec: AdapterSpec, sources: Sequence[str]) -> bool:
    """Whether an adapter is the first of those that have all examples between them: of the clusters, or the sources."""
    return spec.source == sources[0] if spec.source is not None else spec.cluster in (None, 0)


def requirements(
    experiment: Experiment, sources: Sequence[str], clusters: int | None
) -> tuple[Requirements, dict[str, dict[str, AdapterSpec]]]:
    """What the strategies need together, and the adapters of each that has clusters of its own: it shares none."""
    own = {n: s for n, s in experiment.strategies.items() if isinstance(s, Regrouped)}
    others = {n: s for n, s in experiment.strategies.items() if n not in own}
    needs = Requirements(others, experiment.lora, experiment.training, sources, experiment.features)
    parts: dict[str, dict[str, AdapterSpec]] = {}
    for name, strategy in own.items():
        count = clusters or 1
        if strategy.clustering is not None:
            count = strategy.clustering.known_k() or max(1, len(sources))
        parts[name] = replace(needs, strategies={name: strategy}).adapters(count)
    return needs, parts
