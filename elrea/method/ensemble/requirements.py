"""What a run's strategies need between them: adapters to train, clusters, prompts' gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import AdapterSpec, Gated, Setting, Strategy
from elrea.models.lora import Lora
from elrea.models.training.settings import Training


@dataclass(frozen=True)
class Needs:
    """Several strategies' needs; adapters that two name alike are the same.

    Attributes:
        strategies: By name.
        lora: The base adapter's shape.
        training: How base adapter and experts are trained.
        sources: Of the training examples, in the order of the alphabet.
    """

    strategies: Mapping[str, Strategy]
    lora: Lora
    training: Training
    sources: Sequence[str]

    def adapters(self, clusters: int | None) -> dict[str, AdapterSpec]:
        """Adapters beside the base, by member name.

        Args:
            clusters: C; None leaves out the adapters that depend on it.

        Raises:
            ConfigError: Two strategies want one adapter trained differently.
        """
        if clusters is not None:
            return self._jobs(clusters)
        one, two = self._jobs(1), self._jobs(2)
        return {
            name: job for name, job in one.items() if job == two.get(name) and job.cluster is None
        }

    def _jobs(self, clusters: int) -> dict[str, AdapterSpec]:
        jobs: dict[str, AdapterSpec] = {}
        for name, strategy in self.strategies.items():
            wanted = strategy.adapters(self._setting(clusters))
            for adapter in jobs.keys() & wanted.keys():
                if jobs[adapter] != wanted[adapter]:
                    raise ConfigError(
                        f"ensemble[{name}]: wants {adapter} trained otherwise than another strategy "
                        "of this run; give both the same rate"
                    )
            jobs |= wanted
        return jobs

    def _setting(self, clusters: int) -> Setting:
        return Setting(self.lora, self.training, clusters, self.sources)

    def gates(self, clusters: int) -> dict[str, tuple[AdapterSpec, list[str]]]:
        """By strategy, how its gates are trained and which adapters beside the base they stand on."""
        setting = self._setting(clusters)
        return {
            name: (strategy.gates(setting), list(strategy.adapters(setting)))
            for name, strategy in self.strategies.items()
            if isinstance(strategy, Gated)
        }

    @property
    def routed(self) -> bool:
        """Whether any strategy weighs its members prompt by prompt."""
        return any(strategy.routed for strategy in self.strategies.values())

    @property
    def clustered(self) -> bool:
        """Whether any needs clusters: to train on, or to route by."""
        return self.routed or any(job.cluster is not None for job in self._jobs(1).values())

    @property
    def any_count(self) -> bool:
        """Whether they are the same for any number of clusters."""
        return self._jobs(1) == self._jobs(2)
