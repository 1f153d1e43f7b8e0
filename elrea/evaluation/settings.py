"""What is scored, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from elrea.errors import ConfigError


@dataclass(frozen=True)
class Evaluation:
    """Which strategies are scored in one go, and how sure the figures are."""

    strategies: list[str] = field(
        default_factory=lambda: ["backbone", "base", "elrea", "elrea_top1", "uniform"]
    )
    """Names of files in conf/ensemble, or `all`; base and the one that `ensemble=` names are added."""
    split: Literal["test", "dev"] = "test"
    """Which examples are scored. Choose settings on dev, and look at test once."""
    batch_size: int = 16
    """Prompts in one joint pass; each takes a row per member. Changes nothing but speed and memory."""
    resamples: int = 2_000
    """Bootstrap resamples behind each paired 95 % interval."""

    def __post_init__(self) -> None:
        """Refuse numbers that score nothing, by their names."""
        for name in ("batch_size", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name}={getattr(self, name)}: must be at least 1")
