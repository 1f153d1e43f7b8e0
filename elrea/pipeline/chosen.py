"""Stages that only some choices ask for: gates of a strategy, the distilled router."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from elrea.data.prompts import Encoded
from elrea.method.clustering.centroids import cosines
from elrea.method.ensemble.gates import read_gates, train_gates
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.strategy import AdapterSpec, Gated
from elrea.method.features.to_disk import NAME, open_features
from elrea.method.routing.distilled import Distilled
from elrea.method.routing.student import distil, predict, write_cosines
from elrea.method.routing.weights import Routing
from elrea.models.log import OnlyProgress
from elrea.models.training.parallel import Fitting
from elrea.models.training.settings import Recipe
from elrea.pipeline.prepared import Prepared
from elrea.store.stage import Stage

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(description, total) -> a context that yields `advance(n)`."""


class ChosenStages(Prepared):
    """What makes them, on what the stages of every run have made."""

    progress: Progress

    def _examples(self, job: AdapterSpec | None) -> list[Encoded]:
        encoded = self.encoded_train[0]
        if job is None or job.examples == "all":
            return encoded
        if job.examples == "source":
            theirs = {example.id for example in self.kept("train") if example.source == job.source}
            return [example for example in encoded if example.id in theirs]
        which = "assignment" if job.examples == "cluster" else "random"
        mine = self.plan.read_clusters()[which] == torch.tensor(job.cluster)
        return [encoded[i] for i in mine.nonzero()[:, 0].tolist()]

    def _dev(self, job: AdapterSpec | None) -> list[Encoded]:
        """Where an early stop of this training looks, if it has one.

        Raises:
            DataError: No dev example fits.
        """
        if self.it.training.early_stop is None or (job and job.examples != "all"):
            return []
        return self.prompter.train(self.it.corpus.dev, "dev")[0]

    def _fitting(self) -> list[Fitting]:
        """What the base adapter's model has to suit."""
        features = [self.it.features] if self.plan.clustered else []
        return [*features, self._distilled.states] if self.plan.distils else [*features]

    def _train_gates(self, name: str, folder: Path) -> None:
        it, strategy = self.it, self.it.strategies[name]
        assert isinstance(strategy, Gated)
        job, _ = self.plan.needs.gates(self.plan.count or 1)[name]
        nobody = Routing(torch.empty(0, self.plan.count or 1), it.router)
        members = [self._tensors(member) for member in strategy.members(nobody)]
        layerwise = LayerwiseModel(self.backbone.model, members, strategy.delta)
        encoded, recipe = self._examples(job), Recipe(job.epochs, job.learning_rate, it.training)
        with self.progress(f"train gates of {name}", len(encoded) * recipe.epochs) as advance:
            train_gates(
                layerwise, encoded, recipe, pad_id=self.backbone.pad_id, seed=it.seed, stage=f"gates-{name}",
                folder=folder, trainer=it.device.lightning(), task=OnlyProgress(advance),
            )  # fmt: skip

    def _gates(self, name: str, adapters: dict[str, Stage]) -> dict[str, Tensor]:
        """Of a strategy by its name, where it has any."""
        stage = self.plan.gates(adapters).get(name)
        return read_gates(stage.folder) if stage else {}

    def _distil(self, folder: Path) -> None:
        kept, dev = self.kept("train"), list(self.it.corpus.dev)
        train = self.prompter.routing(kept), self._cosines(self.plan.train_features, len(kept))
        judged = None
        if dev:
            with self.progress("features, dev prompts", len(dev) * len(self.epochs)) as advance:
                features = self.features_of(dev, advance).numpy()
            centroids = self.plan.read_clusters()["centroids"]
            judged = self.prompter.routing(dev), cosines(features, centroids)
        with self._peft(self.it.lora) as model:
            distil(
                folder, model, self.plan.base.folder / "adapter", train, judged, self._distilled,
                seed=self.it.seed, pad_id=self.backbone.pad_id, progress=self.progress,
            )  # fmt: skip

    def _predict(self, folder: Path) -> None:
        prompts = self.prompter.routing(self.kept("test"))
        with (
            self._peft(self.it.lora) as model,
            self.progress("route, test prompts", len(prompts)) as advance,
        ):
            found = predict(
                self.plan.router.folder, model, self.plan.base.folder / "adapter", prompts, self._distilled,
                pad_id=self.backbone.pad_id, advance=advance,
            )  # fmt: skip
        write_cosines(folder, found)

    @property
    def _distilled(self) -> Distilled:
        assert isinstance(self.it.router, Distilled)
        return self.it.router

    def _cosines(self, features: Stage, count: int) -> Tensor:
        rows = open_features(features.folder / NAME, count)
        return cosines(rows, self.plan.read_clusters()["centroids"])
