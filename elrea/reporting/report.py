"""A finished run as one plain object: terminal, pictures, report.html, predictions and W&B take it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.data.examples import Example
from elrea.evaluation.scoring import Outcome
from elrea.method.routing.weights import Routing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MadeStage:
    """One stage of a finished run.

    Attributes:
        kind: Its folder's name in the store.
        key: 16 hexadecimal digits.
        seconds: What making it took, in this run or an earlier one.
        reused: Whether it was in the store before.
        upstream: Keys of the stages that it was made of, by name.
    """

    kind: str
    key: str
    seconds: float
    reused: bool
    upstream: Mapping[str, str]


@dataclass(frozen=True)
class Grouping:
    """The clusters of the training examples.

    Attributes:
        sources: Of the training examples that were kept, in alphabetical order.
        counts: Examples of each source in each cluster [sources, C].
        assignment: Cluster of each kept example [n]; -1 for those without a feature.
        kept: Source of each kept example [n].
        features: The file of their features.
        quality: Figures on the clusters.
        requested: How many clusters the settings ask for; None where they leave it open.
    """

    sources: Sequence[str]
    counts: np.ndarray
    assignment: Sequence[int]
    kept: Sequence[str]
    features: Path
    quality: Mapping[str, Any]
    requested: int | None

    @property
    def clusters(self) -> int:
        """C."""
        return int(self.counts.shape[1])


@dataclass(frozen=True)
class Members:
    """What the exported ensemble consists of.

    Attributes:
        adapters: Folders of the base adapter and the experts, by name.
        epochs: The base adapter with Adam's moments at each epoch's end; none where a distilled router routes.
        centroids: Of the clusters [C, d].
        router: Folder of the distilled router, if there is one.
        facts: What `ensemble.json` says of backbone, features and router.
    """

    adapters: Mapping[str, Path]
    epochs: Sequence[Path]
    centroids: Tensor
    router: Path | None
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        chosen: The strategy that `ensemble=` names.
        command: The words that were typed after `run.py`.
        data: The data's name, with what a reader must know of it.
        backbone: Its name.
        seed: The run's.
        resamples: Of bootstrap intervals.
        test: The test items.
        tasks: What each test item counts for in the macro average [n].
        train: How many training examples there were.
        left_out: What the data's source dropped, a line each.
        outcomes: By strategy in the order of the table, item by item.
        strategies: By strategy, its figures as in summary.json.
        routing: How the test prompts were weighed; None where no strategy routes.
        gradient: The same by gradient, where a distilled router routes and is compared with it.
        router: Figures of the distilled router's training, if there is one.
        grouping: The clusters, if there are any.
        curves: By adapter, the rows of its curve.json.
        stages: By name, in the order of the work.
        dropped: Ids of training examples that did not fit.
        too_long: Ids of test prompts that did not fit.
        shots: Of each test prompt, how many of its solved examples fitted; empty where none has any.
        skipped: By split (train, test), ids of examples without a feature: gradient zero or not finite.
        warnings: What a reader should know besides, a line each.
        members: What is exported, where prompts are routed.
        versions: Of the libraries.
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
