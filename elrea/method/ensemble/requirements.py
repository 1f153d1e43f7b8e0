"""The requirements of all strategies of a run together: adapters to train, clusters, routing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import AdapterSpec, DevGated, Setting, Strategy, TrainedGates
from elrea.method.features.base import Features
from elrea.models.adapter_shape import Lora
from elrea.models.training.settings import Training


@dataclass(frozen=True)
class Requirements:
    """What several strategies require; adapters of the same name are trained once.

    Attributes:
        strategies: The strategies by name.
        lora: The base adapter's shape.
        training: How base adapter and experts are trained.
        sources: Sources of the training examples, sorted.
        features: What the training prompts are clustered by.
    """

    strategies: Mapping[str, Strategy]
    lora: Lora
    training: Training
    sources: Sequence[str]
    features: Features | None = None

    def adapters(self, clusters: int | None) -> dict[str, AdapterSpec]:
        """The adapters beside the base adapter, by member name.

        Args:
            clusters: C; None leaves out the adapters that depend on it.

        Raises:
            ConfigError: Two strategies train an adapter of the same name differently.
        """
        if clusters is not None:
            return self._specs(clusters)
        one, two = self._specs(1), self._specs(2)
        return {
            name: spec for name, spec in one.items() if spec == two.get(name) and not spec.clustered
        }

    def _specs(self, clusters: int) -> dict[str, AdapterSpec]:
        specs: dict[str, AdapterSpec] = {}
        owners: dict[str, str] = {}
        for name, strategy in self.strategies.items():
            required = strategy.adapters(self._setting(clusters))
            for adapter in required:
                other = owners.setdefault(adapter, name)
                if specs.get(adapter, required[adapter]) != required[adapter]:
                    raise ConfigError(
                        f"ensemble[{name}]: trains the adapter {adapter} with other settings than {other} does "
                        f"(learning rates {required[adapter].learning_rate:g} and {specs[adapter].learning_rate:g}); "
                        f"give {name} and {other} the same rate (gated_wide: trunk_rate) in evaluation.settings, or "
                        "score them in runs of their own"
                    )
            specs |= required
        return specs

    def _setting(self, clusters: int) -> Setting:
        return Setting(self.lora, self.training, clusters, self.sources, self.features)

    def gates(self, clusters: int) -> dict[str, tuple[AdapterSpec, list[str]]]:
        """By strategy, how its gates are trained, and the adapters beside the base adapter that it mixes."""
        setting = self._setting(clusters)
        return {
            name: (strategy.gates(setting), list(strategy.adapters(setting)))
            for name, strategy in self.strategies.items()
            if isinstance(strategy, TrainedGates)
        }

    @property
    def routed(self) -> bool:
        """Whether any strategy weighs its members prompt by prompt."""
        return any(strategy.routed for strategy in self.strategies.values())

    @property
    def decided(self) -> list[str]:
        """The strategies that dev examples decide."""
        return [n for n, s in self.strategies.items() if isinstance(s, DevGated) and s.undecided]

    @property
    def clustered(self) -> bool:
        """Whether any strategy needs clusters: to train on, or to route by."""
        return self.routed or any(spec.clustered for spec in self._specs(1).values())

    @property
    def any_count(self) -> bool:
        """Whether the adapters are the same for any number of clusters."""
        return self._specs(1) == self._specs(2)
