"""The method, stage after stage.

    corpus -> base adapter (+ moments per epoch) -> features -> clusters -> experts
           -> features of the test prompts -> routing -> members' logits -> one mix per strategy -> scores

Every stage is kept in the store under a key of what went into it, so that any later run that asks for the same
reuses it. What an adapter, a feature or a weight is stands in the rooms that this page calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from elrea.adapters import lora as lora_files
from elrea.adapters.lora import Lora
from elrea.adapters.training import Recipe, epoch_folders, train_adapter
from elrea.backbone.load import Backbone
from elrea.data.examples import Example
from elrea.data.prompts import Encoded, Prompter
from elrea.ensemble.joint import Adapter, JointModel
from elrea.ensemble.strategy import BACKBONE, BASE, Job
from elrea.evaluation.scoring import Outcome, mixtures, questions_of, score
from elrea.experiment import Experiment
from elrea.features.extract import extract
from elrea.features.featurefile import NAME, open_features
from elrea.features.stream import read_skipped, stream
from elrea.files import read_json, write_json
from elrea.plan import Plan
from elrea.routing.centroids import cosines
from elrea.routing.clusters import QUALITY, make_clusters
from elrea.routing.weights import Routing
from elrea.store import Stage, Store

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(description, total) -> a context that yields `advance(n)`."""


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        outcomes: Per strategy, test item by test item.
        routing: Cosines of the test prompts with the clusters.
        weights: Per strategy and test prompt, by member name.
        too_long: Ids of test prompts that did not fit.
        dropped: Ids of training examples that did not fit.
        skipped: Per split (train, test), ids of examples without a feature: gradient zero or not finite.
        assignment: Cluster of each training example that was kept [n]; -1 for those without a feature.
        quality: Figures on the clusters.
        reused: Per stage, whether it was there before.
    """

    outcomes: dict[str, Outcome]
    routing: Routing
    weights: dict[str, Tensor]
    too_long: list[str]
    dropped: list[str]
    skipped: dict[str, list[str]]
    assignment: list[int]
    quality: dict[str, Any]
    reused: dict[str, bool]


class Pipeline:
    """One experiment against one store.

    Args:
        experiment: What to do.
        store: Where stages are kept.
        progress: Makes a progress bar.
    """

    def __init__(self, experiment: Experiment, store: Store, progress: Progress) -> None:
        self.it = experiment
        self.plan = Plan(experiment, store)
        self.progress = progress

    def run(self) -> Result:
        """Makes what is not there yet, and reads the result."""
        reused: dict[str, bool] = {}
        for name, stage, make in self._work():
            stage.run(make)
            reused[name] = stage.reused
        return self._result(stage, reused)

    def _work(self) -> Iterator[tuple[str, Stage, Callable[[Path], None]]]:
        """Stages and what makes them, one after the other: how many experts there are shows on the way."""
        plan = self.plan
        yield "base", plan.base, partial(self._train, BASE)
        if plan.clustered:
            yield "features-train", plan.train_features, partial(self._extract, "train")
            yield "clusters", plan.clusters, self._cluster
        adapters = plan.adapters()
        for name, stage in adapters.items():
            yield name, stage, partial(self._train, name)
        if plan.routed:
            yield "features-test", plan.test_features, partial(self._extract, "test")
        yield "scores", plan.scores(adapters), partial(self._score, adapters)

    def _train(self, name: str, folder: Path) -> None:
        job = self.plan.jobs[name] if name != BASE else None
        lora = job.lora if job else self.it.lora
        training = self.it.training
        recipe = Recipe(job.epochs, job.learning_rate, training) if job else training.base()
        encoded = self._examples(job)
        start = self._tensors(BASE)[0] if job and job.from_base else None
        with (
            self._peft(lora) as model,
            self.progress(f"train {name}", len(encoded) * recipe.epochs) as advance,
        ):
            if name == BASE and self.plan.clustered:
                self.it.features.fits(model)
            train_adapter(
                model, encoded, recipe, pad_id=self.backbone.pad_id, lora=lora, base_name=self.backbone.name,
                seed=job.seed(self.it.seed) if job else self.it.seed, stage=name, folder=folder, start=start,
                keep_moments=name == BASE, trainer=self.it.device.lightning(), advance=advance,
            )  # fmt: skip

    def _examples(self, job: Job | None) -> list[Encoded]:
        encoded = self.encoded_train[0]
        if job is None or job.examples == "all":
            return encoded
        which = "assignment" if job.examples == "cluster" else "random"
        mine = self.plan.read_clusters()[which] == torch.tensor(job.cluster)
        return [encoded[i] for i in mine.nonzero()[:, 0].tolist()]

    def _extract(self, split: str, folder: Path) -> None:
        it, prompts = self.it, self.prompter.routing(self.kept(split))
        with self._peft(it.lora) as model:
            reader = it.features.reader(
                model, self.epochs, self.backbone.pad_id, self.backbone.tokenizer
            )
            total = len(prompts) * reader.rounds
            with self.progress(f"features, {split} prompts", total) as advance:
                if it.device.devices == 1:
                    return stream(folder, prompts, it.features, reader, advance=advance)
                from elrea.features.shares import Work, stream_shares

                parts = (it.features, it.backbone, it.lora, self.epochs, it.device, it.seed)
                stream_shares(Work(folder, prompts, *parts), advance)

    def features_of(self, examples: list[Example]) -> Tensor:
        """δ of any examples' prompts, by the finished base adapter: [n, d], zeros where there is none."""
        prompts = self.prompter.routing(examples)
        with self._peft(self.it.lora) as model:
            return extract(
                model, self.epochs, prompts, self.it.features,
                pad_id=self.backbone.pad_id, tokenizer=self.backbone.tokenizer,
            )  # fmt: skip

    def _cluster(self, folder: Path) -> None:
        make_clusters(
            folder, self.plan.train_features.folder, self.kept("train"), self.it.clustering, self.it.seed,
            unit=self.it.features.normalise,
        )  # fmt: skip

    def _score(self, adapters: dict[str, Stage], folder: Path) -> None:
        test = self.it.corpus.test
        encoded, too_long = self.prompter.test(test)
        choices = [self.prompter.choices(e) for e in test]
        questions = questions_of(encoded, choices, [e.answer for e in test])
        names, mixed = mixtures(self.it.strategies, self._routing())
        tensors = [None if name == BACKBONE else self._tensors(name) for name in names]
        joint = JointModel(self.backbone.model, tensors)
        with self.progress(f"score, {len(names)} members", len(questions)) as advance:
            outcomes = score(
                joint, questions, mixed, batch_size=self.it.evaluation.batch_size,
                pad_id=self.backbone.pad_id, advance=advance,
            )  # fmt: skip
        write_json(folder / "outcomes.json", {name: asdict(o) for name, o in outcomes.items()})
        write_json(folder / "too_long.json", too_long)

    @property
    def epochs(self) -> list[Path]:
        """The base adapter and its moments at each epoch's end."""
        return epoch_folders(self.plan.base.folder)

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen model, loaded when the first stage needs it."""
        return self.it.backbone.load(self.it.device)

    @cached_property
    def prompter(self) -> Prompter:
        return Prompter(
            self.backbone.tokenizer, self.it.backbone.length(), self.it.backbone.use_chat_template
        )

    @cached_property
    def encoded_train(self) -> tuple[list[Encoded], list[str]]:
        """Training examples that fit, and the ids of those that do not."""
        return self.prompter.train(self.it.corpus.train)

    def kept(self, split: str) -> list[Example]:
        """Examples whose prompts get features: all test examples, and the training examples that fit."""
        if split == "test":
            return list(self.it.corpus.test)
        dropped = set(self.encoded_train[1])
        return [example for example in self.it.corpus.train if example.id not in dropped]

    @contextmanager
    def _peft(self, lora: Lora) -> Iterator[PeftModel]:
        """The backbone with one adapter around it, which is taken off again."""
        model = lora_files.attach(self.backbone.model, lora, self.it.seed)
        try:
            yield model
        finally:
            lora_files.detach(model)

    def _tensors(self, name: str) -> Adapter:
        """A finished adapter by its member's name."""
        stage = self.plan.base if name == BASE else self.plan.adapters()[name]
        return lora_files.load(stage.folder / "adapter")

    def _routing(self) -> Routing:
        """Where no strategy looks at the prompts' gradients, all cosines are 0."""
        count = len(self.it.corpus.test)
        if not self.plan.routed:
            return Routing(torch.zeros(count, self.plan.count or 1), self.it.router)
        features = open_features(self.plan.test_features.folder / NAME, count)
        return Routing(cosines(features, self.plan.read_clusters()["centroids"]), self.it.router)

    def _result(self, scores: Stage, reused: dict[str, bool]) -> Result:
        routing, plan = self._routing(), self.plan
        outcomes = read_json(scores.folder / "outcomes.json")
        return Result(
            outcomes={name: Outcome(**outcomes[name]) for name in self.it.strategies},
            routing=routing,
            weights={name: s.weights(routing) for name, s in self.it.strategies.items()},
            too_long=read_json(scores.folder / "too_long.json"),
            dropped=self.encoded_train[1],
            skipped={
                "train": read_skipped(plan.train_features.folder) if plan.clustered else [],
                "test": read_skipped(plan.test_features.folder) if plan.routed else [],
            },
            assignment=plan.read_clusters()["assignment"].tolist() if plan.clustered else [],
            quality=read_json(plan.clusters.folder / QUALITY) if plan.clustered else {},
            reused=reused,
        )
