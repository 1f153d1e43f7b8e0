"""Reads what dev examples say of a strategy that decides by them, and decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elrea.method.ensemble.strategy import DevGated, Strategy
from elrea.store.files import read_json

if TYPE_CHECKING:
    from elrea.method.ensemble.dev_gate import ClusterDecision
    from elrea.store.stage import Stage

PAIRS = "pairs.json"
CORRECT, LOSS = "correct", "loss"


@dataclass(frozen=True)
class Pairs:
    """What the stage holds.

    Attributes:
        measure: `correct` (shares of 1) if every dev example has choices, else `loss` (nats per token).
        differences: For each cluster, by how much its expert is better than the trunk on each of its dev examples.
        left_out: Dev examples that are too long, or have no feature.
    """

    measure: str
    differences: Sequence[Sequence[float]]
    left_out: int


def read_pairs(folder: Path) -> Pairs:
    """Reads what the finished stage holds."""
    content = read_json(folder / PAIRS)
    measure, examples = content["measure"], list(content["examples"].values())
    sign = 1 if measure == CORRECT else -1
    differences: list[list[float]] = [[] for _ in range(content["clusters"])]
    for row in filter(None, examples):
        trunk, expert = row[measure]
        differences[row["cluster"]].append(sign * (float(expert) - float(trunk)))
    return Pairs(measure, differences, examples.count(None))


def verdicts(name: str, strategy: Strategy, upstream: Mapping[str, Stage]) -> list[ClusterDecision]:
    """What dev says of each cluster; empty for a strategy that does not decide by it."""
    stage = upstream.get(f"paired-{name}")
    if stage is None or not isinstance(strategy, DevGated):
        return []
    return strategy.verdicts(read_pairs(stage.folder).differences)


def decided(name: str, strategy: Strategy, upstream: Mapping[str, Stage]) -> Strategy:
    """The strategy, decided by its stage if it has one."""
    found = verdicts(name, strategy, upstream)
    if not found:
        return strategy
    assert isinstance(strategy, DevGated)
    return strategy.serving([c for c, verdict in enumerate(found) if verdict.serves])
