"""The report of a finished run: the only input of the terminal tables, plots, report.html, predictions and W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elrea.data.examples import Example
from elrea.evaluation.scoring import Outcome
from elrea.method.ensemble.strategy import BASE, expert_names
from elrea.method.routing.weights import Routing

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.method.ensemble.dev_gate import ClusterDecision


@dataclass(frozen=True)
class MadeStage:
    """One stage of a finished run.

    Attributes:
        kind: Name of its folder in the store.
        key: 16 hexadecimal digits.
        seconds: Time that making it took, in this run or an earlier one.
        reused: Whether it was in the store before this run.
        upstream: Keys of its input stages, by name.
        strategies: The strategies that need it before they can answer; scoring and texts are needed by none.
    """

    kind: str
    key: str
    seconds: float
    reused: bool
    upstream: Mapping[str, str]
    strategies: Sequence[str] = ()


@dataclass(frozen=True)
class Grouping:
    """The clusters of the training examples.

    Attributes:
        sources: Names of the kept examples' sources, in alphabetical order.
        counts: Examples of each source in each cluster [sources, C].
        assignment: Cluster of each kept example [n]; -1 for examples without a feature.
        kept: Source of each kept example [n].
        features: Path of the examples' features.
        quality: Measures of the clustering's quality, by name.
        categorised: Whether the examples are of several categories, which the clusters can be compared with.
    """

    sources: Sequence[str]
    counts: np.ndarray
    assignment: Sequence[int]
    kept: Sequence[str]
    features: Path
    quality: Mapping[str, Any]
    categorised: bool = True

    @property
    def clusters(self) -> int:
        """Number of clusters C."""
        return int(self.counts.shape[1])


@dataclass(frozen=True)
class DevGate:
    """How a strategy was decided on dev.

    Attributes:
        measure: `correct`: differences are shares of 1; `loss`: nats per token.
        clusters: What dev says of each.
        left_out: Dev examples that are too long, or have no feature.
    """

    measure: str
    clusters: Sequence[ClusterDecision]
    left_out: int


@dataclass(frozen=True)
class Members:
    """Parts of the exported ensemble.

    Attributes:
        adapters: Folders of the base adapter and the experts, or of a steered adapter's members, by name.
        epochs: Folders of the base adapter with Adam's moments at each epoch's end; empty with a learned router.
        centroids: Of the clusters [C, d].
        router: Folder of the learned router, or None.
        facts: Fields of `ensemble.json` on backbone, features and router.
    """

    adapters: Mapping[str, Path]
    epochs: Sequence[Path]
    centroids: Tensor
    router: Path | None
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """Settings and results of a finished run.

    Attributes:
        chosen: The strategy that `ensemble=` selects.
        name: The run's name (`name=`); empty if it has none.
        gates: By strategy that dev examples decide, what they say.
        command: The command line after `run.py`.
        data: Name of the data, with any caveat (such as "built-in exam, not MMLU").
        note: More on the data where `data` is a short form: the sources of a mix and their sizes.
        backbone: Its name.
        seed: Of the run.
        resamples: Of bootstrap intervals.
        test: The test items.
        tasks: Task of each test item, for the macro average [n].
        train: Number of training examples.
        left_out: Examples that the data's source dropped, and texts that the tokenizer cannot express, a line for each
            reason.
        outcomes: By strategy in the order of the table, its outcome on each item.
        strategies: By strategy, its figures as in summary.json.
        routing: Weights of the members for each test prompt, as ELREA takes them; None if no strategy routes.
        gradient: Routing by gradients, if a learned router is compared with it; else None.
        router: Figures of the learned router's training; empty without one.
        grouping: The clusters, or None.
        curves: By adapter, the rows of its curve.json.
        stages: By name, in the order in which they are made.
        dropped: Ids of training examples that were too long.
        too_long: Ids of test prompts that were too long.
        shots: Number of solved examples that fitted into each test prompt; empty if the data has none.
        skipped: By split (train, test), ids of examples without a feature: gradient zero or not finite.
        warnings: Lines to print below the results.
        members: Parts of the exported ensemble; None if no strategy routes.
        versions: Of the libraries, by name.
    """

    chosen: str
    command: Sequence[str]
    data: str
    backbone: str
    seed: int
    resamples: int
    test: Sequence[Example]
    tasks: Sequence[str]
    train: int
    left_out: Sequence[str]
    outcomes: Mapping[str, Outcome]
    strategies: Mapping[str, Mapping[str, Any]]
    routing: Routing | None
    gradient: Routing | None
    router: Mapping[str, Any]
    grouping: Grouping | None
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    stages: Mapping[str, MadeStage]
    dropped: Sequence[str]
    too_long: Sequence[str]
    shots: Sequence[int]
    skipped: Mapping[str, Sequence[str]]
    warnings: Sequence[str]
    members: Members | None
    versions: Mapping[str, str]
    name: str = ""
    note: str = ""
    gates: Mapping[str, DevGate] = field(default_factory=dict)
    mixed: tuple[Sequence[str], Tensor] | None = None
    """The members of the chosen strategy and their weights for each test prompt [n, members], if it routes."""
    own_clusters: bool = False
    """Whether the chosen strategy has other clusters than `grouping` and `routing`, which are ELREA's."""
    mean_logits: bool = False
    """Whether the mixed logits are means (evaluation.mean_logits)."""

    @property
    def sharper(self) -> bool:
        """Whether the loss of a row that mixes members is that of a sum of logits."""
        return not self.mean_logits and any(
            row.get("loss") is not None and (row.get("forward_passes") or 1) > 1
            for row in self.strategies.values()
        )

    @property
    def weights(self) -> tuple[Sequence[str], Tensor] | None:
        """Members and their weights for each test prompt: the chosen strategy's, else ELREA's; None if no strategy
        routes."""
        if self.mixed is not None or self.routing is None:
            return self.mixed
        weights = torch.cat([self.routing.base[:, None], self.routing.experts()], dim=1)
        return [BASE, *expert_names(self.routing.clusters)], weights
