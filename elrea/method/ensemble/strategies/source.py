"""M + Q_dataset: one adapter per source of the training data, each used for the prompts of its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import AdapterSpec, Rated, Setting, Strategy

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class SourceAdapters(Rated, Strategy):
    """Separate adapters for a user who knows every prompt's source; the sources share nothing.

    These adapters start fresh; with `clustering=source` the experts start from the base adapter.
    """

    rate: float = 1.0
    """The highest learning rate, as a multiple of training.learning_rate."""
    routed: ClassVar[bool] = False
    by_source: ClassVar[bool] = True

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        training = setting.training
        rate = self.rate * training.learning_rate
        return {
            name: AdapterSpec(
                setting.lora, training.epochs, rate, "source", source=source, from_base=False
            )
            for source, name in zip(setting.sources, _names(len(setting.sources)), strict=True)
        }

    def members(self, routing: Routing) -> list[str]:
        return _names(len(routing.trained))

    def weights(self, routing: Routing) -> Tensor:
        return source_weights(routing, "ensemble=source")


def source_weights(routing: Routing, name: str) -> Tensor:
    """1 for the member of each prompt's source, else 0 [n, sources].

    Args:
        routing: Of the prompts.
        name: What needs the sources, for the message.

    Raises:
        ConfigError: A prompt's source has no training examples.
    """
    weights = torch.zeros(len(routing.sources), len(routing.trained))
    for row, source in zip(weights, routing.sources, strict=True):
        if source not in routing.trained:
            raise unknown_source(name, source, routing.trained)
        row[list(routing.trained).index(source)] = 1
    return weights


def unknown_source(name: str, source: str, trained: Sequence[str]) -> ConfigError:
    """The error of a strategy that needs training examples of every source, where the test has another one."""
    return ConfigError(
        f"{name}: test prompts of {source!r}, but no training examples of it (there are: {', '.join(trained)}); "
        "give both the same source (a row's field `source`, else its file's name), or leave this strategy out"
    )


def _names(count: int) -> list[str]:
    """Member names by number: a source's name may not be possible as a file name."""
    return [f"source-{number}" for number in range(count)]
