"""The stages of an experiment and their keys: what will be made, and what of it is there already."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor

from elrea.errors import ClusterError
from elrea.method.clustering.assignment import read_clusters
from elrea.method.clustering.points import known_k
from elrea.method.ensemble.requirements import Needs
from elrea.method.ensemble.strategy import BASE, AdapterSpec
from elrea.method.routing.distilled import NOT_LEARNED, Distilled
from elrea.pipeline.answers import Upstream, answer_stages, score_stage
from elrea.pipeline.experiment import Experiment, described
from elrea.store.stage import Stage, Store

_NOT_KEYED = (
    "checkpoint_minutes", "recompute", "early_stop",
    "epochs", "expert_epochs", "learning_rate", "expert_learning_rate",
)  # fmt: skip
"""Fields of the training that change no adapter, that its own job overrides, or that are added where they count."""

_SPEED = ("batch_size", "batch_tokens", "buffer_mb", "recompute")
"""Fields of the features that change them by rounding at most."""


class Plan:
    """One experiment against one store.

    A stage's key holds exactly what can change its output: its settings, the data's fingerprint, the keys of the
    stages that it stands on.

    Args:
        experiment: What to do.
        store: Where stages are kept.
    """

    def __init__(self, experiment: Experiment, store: Store) -> None:
        self.it = experiment
        self.store = store

    @cached_property
    def base(self) -> Stage:
        """Step 1."""
        training = self.it.training
        job = AdapterSpec(
            self.it.lora, training.epochs, training.learning_rate, "all", from_base=False
        )
        return self._adapter_stage(BASE, job)

    @cached_property
    def train_features(self) -> Stage:
        """Step 2."""
        return self._feature_stage("train")

    @cached_property
    def clusters(self) -> Stage:
        """Step 3.

        Raises:
            ClusterError: Fewer examples than clusters; said here, before anything is trained.
        """
        count, k = len(self.it.corpus.train), known_k(self.it.clustering)
        if k is not None and count < k:
            raise ClusterError(
                f"{count} training examples cannot make clustering.k={k} clusters; lower it or give more data"
            )
        inputs = {
            "features": self.train_features.key,
            "clustering": described(self.it.clustering),
            "seed": self.it.seed,
        }
        return self.store.stage("clusters", 3, inputs)

    @cached_property
    def test_features(self) -> Stage:
        """δ_test, before any response exists."""
        return self._feature_stage("test")

    @cached_property
    def router(self) -> Stage:
        """The distilled router, trained."""
        inputs = {
            "base": self.base.key,
            "clusters": self.clusters.key,
            "router": described(self.it.router, *NOT_LEARNED),
            "dev": self.it.corpus.fingerprint("dev"),
            "seed": self.it.seed,
        }
        return self.store.stage("router", 2, inputs)

    @cached_property
    def routing(self) -> Stage:
        """The test prompts' cosines, as the distilled router guesses them."""
        inputs = {"router": self.router.key, "test": self.it.corpus.fingerprint("test")}
        return self.store.stage("routing", 1, inputs)

    @property
    def count(self) -> int | None:
        """C: once the clusters are made, what they came to; before, what the settings say of it, if they do."""
        if self.clusters.done():
            return len(self.read_clusters()["centroids"])
        return known_k(self.it.clustering)

    @property
    def jobs(self) -> dict[str, AdapterSpec]:
        """Adapters beside the base, by member name; while C is not known, those that do not depend on it."""
        return self.needs.adapters(self.count)

    @cached_property
    def needs(self) -> Needs:
        """What the strategies need."""
        sources = tuple(sorted({example.source for example in self.it.corpus.train}))
        return Needs(self.it.strategies, self.it.lora, self.it.training, sources)

    def gates(self, adapters: dict[str, Stage]) -> dict[str, Stage]:
        """A stage for the gates of every strategy that has any, by the strategy's name."""
        stages = {}
        for name, (job, members) in self.needs.gates(self.count or 1).items():
            inputs = {
                "strategy": described(self.it.strategies[name]),
                "epochs": job.epochs,
                "learning_rate": job.learning_rate,
                "training": described(self.it.training, *_NOT_KEYED),
                "precision": self.it.device.precision,
                "seed": self.it.seed,
                "base": self.base.key,
                "members": {member: adapters[member].key for member in members},
            }
            stages[name] = self.store.stage("gates", 1, inputs)
        return stages

    def adapters(self) -> dict[str, Stage]:
        """A stage for every adapter beside the base (step 4)."""
        return {name: self._adapter_stage(name, job) for name, job in self.jobs.items()}

    def answers(self, adapters: dict[str, Stage]) -> dict[str, Stage]:
        """A stage for what every strategy writes, where texts are judged, by the strategy's name."""
        return answer_stages(self.it, self.store, self._upstream(adapters))

    def scores(self, adapters: dict[str, Stage]) -> Stage:
        """Section 3 of the method: routing, mixing and scoring."""
        texts = self.answers(adapters)
        return score_stage(self.it, self.store, self._upstream(adapters), texts)

    def _upstream(self, adapters: dict[str, Stage]) -> Upstream:
        routed_by = self.routing if self.distils else self.test_features
        return Upstream(
            self.base.key, {name: stage.key for name, stage in adapters.items()},
            {name: stage.key for name, stage in self.gates(adapters).items()},
            self.clusters.key if self.clustered else None, routed_by.key if self.routed else None,
            self._prompts, self.count or 1, self.needs.sources,
        )  # fmt: skip

    @cached_property
    def routed(self) -> bool:
        """Whether any strategy weighs its members prompt by prompt."""
        return self.needs.routed

    @property
    def distils(self) -> bool:
        """Whether that is done by a distilled router."""
        return self.routed and isinstance(self.it.router, Distilled)

    @property
    def graded(self) -> bool:
        """Whether the test prompts' gradients are taken: to route by, or to judge the distilled router."""
        return self.routed and getattr(self.it.router, "compare", True)

    @cached_property
    def clustered(self) -> bool:
        """Whether any strategy needs clusters: to train on, or to route by."""
        return self.needs.clustered

    @property
    def counted(self) -> bool:
        """Whether all stages are known: an open number of clusters leaves experts and scores to come."""
        return self.needs.any_count or self.count is not None

    def stages(self) -> dict[str, Stage]:
        """Every stage that the strategies need, by name, in the order of the work; of an open number of clusters, the
        stages that are known."""
        adapters = self.adapters()
        stages = {"base": self.base}
        if self.clustered:
            stages |= {"features-train": self.train_features, "clusters": self.clusters}
        if self.distils:
            stages |= {"router": self.router, "routing": self.routing}
        stages |= adapters
        if self.counted:
            stages |= {f"gates-{name}": stage for name, stage in self.gates(adapters).items()}
        if self.graded:
            stages["features-test"] = self.test_features
        if self.counted:
            stages |= {f"answers-{name}": s for name, s in self.answers(adapters).items()}
            stages["scores"] = self.scores(adapters)
        return stages

    def read_clusters(self) -> dict[str, Tensor]:
        """`assignment` [n] (-1: in no cluster), `random` [n] and `centroids` [C, d] of a finished clustering."""
        return read_clusters(self.clusters.folder)

    @cached_property
    def _prompts(self) -> dict[str, Any]:
        return self.it.prompts()

    def _adapter_stage(self, name: str, job: AdapterSpec) -> Stage:
        inputs: dict[str, Any] = {
            "name": name,
            "lora": described(job.lora),
            "epochs": job.epochs,
            "learning_rate": job.learning_rate,
            "training": described(self.it.training, *_NOT_KEYED),
            "precision": self.it.device.precision,
            "seed": self.it.seed,
        }
        if job.draw:
            inputs["draw"] = job.draw
        if job.lora.dropout and self.it.device.together > 1:
            inputs["processes"] = self.it.device.together  # each draws masks of its own
        if job.from_base:
            inputs["base"] = self.base.key
        else:
            inputs |= {"prompts": self._prompts, "train": self.it.corpus.fingerprint("train")}
        if self.it.training.early_stop and job.examples == "all":
            dev = self.it.corpus.fingerprint("dev")
            inputs |= {"early_stop": self.it.training.early_stop, "dev": dev}
        if job.source is not None:
            inputs["source"] = job.source
        if job.cluster is not None:
            inputs |= {
                "clusters": self.clusters.key,
                "examples": job.examples,
                "cluster": job.cluster,
            }
        return self.store.stage(BASE if name == BASE else "adapter", 1, inputs)

    def _feature_stage(self, split: str) -> Stage:
        features = self.it.features
        features.check(self.it.training.epochs)
        inputs = {
            "features": {**described(features, *_SPEED), **features.identity()},
            "prompts": self._prompts,
            "examples": self.it.corpus.fingerprint("train" if split == "train" else "test"),
        }
        if features.from_base:
            inputs["base"] = self.base.key
        return self.store.stage("features", 2, inputs)
