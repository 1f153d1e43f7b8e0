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
from safetensors.torch import load_file, save_file
from torch import Tensor

from elrea.adapters import lora as lora_files
from elrea.adapters.lora import Lora
from elrea.adapters.training import Recipe, epoch_folders, train_adapter
from elrea.backbone.load import Backbone
from elrea.clustering.quality import quality
from elrea.clustering.random import random_clusters
from elrea.data.examples import Example
from elrea.data.prompts import Encoded, Prompter
from elrea.ensemble.joint import Adapter, JointModel
from elrea.ensemble.strategy import BACKBONE, BASE, Job
from elrea.evaluation.scoring import Mixture, Outcome, questions_of, score
from elrea.experiment import Experiment
from elrea.features.extract import extract
from elrea.files import read_json, write_json
from elrea.plan import Plan
from elrea.routing.centroids import centroids, cosines
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
        assignment: Cluster of each training example that was kept [n].
        quality: Figures on the clusters.
    """

    outcomes: dict[str, Outcome]
    routing: Routing
    weights: dict[str, Tensor]
    too_long: list[str]
    dropped: list[str]
    assignment: list[int]
    quality: dict[str, Any]


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
        self.plan.base.run(partial(self._train, BASE))
        if self.plan.clustered:
            self.plan.train_features.run(partial(self._extract, "train"))
            self.plan.clusters.run(self._cluster)
        adapters = self.plan.adapters()
        for name, stage in adapters.items():
            stage.run(partial(self._train, name))
        if self.plan.routed:
            self.plan.test_features.run(partial(self._extract, "test"))
        scores = self.plan.scores(adapters)
        scores.run(partial(self._score, adapters))
        return self._result(scores)

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
            train_adapter(
                model, encoded, recipe, pad_id=self.backbone.pad_id, lora=lora, base_name=self.backbone.name,
                seed=self.it.seed, stage=name, folder=folder, start=start, keep_moments=name == BASE,
                trainer=self.it.device.lightning(), advance=advance,
            )  # fmt: skip

    def _examples(self, job: Job | None) -> list[Encoded]:
        encoded = self.encoded_train[0]
        if job is None or job.examples == "all":
            return encoded
        assignment = self.plan.read_clusters()[
            "assignment" if job.examples == "cluster" else "random"
        ]
        return [
            encoded[i] for i in (assignment == torch.tensor(job.cluster)).nonzero()[:, 0].tolist()
        ]

    def _extract(self, split: str, folder: Path) -> None:
        prompts = self.prompter.routing(self._kept(split))
        checkpoints = epoch_folders(self.plan.base.folder)
        total = len(prompts) * len(checkpoints)
        with (
            self._peft(self.it.lora) as model,
            self.progress(f"gradients, {split} prompts", total) as advance,
        ):
            features = extract(
                model,
                checkpoints,
                prompts,
                self.it.features,
                pad_id=self.backbone.pad_id,
                advance=advance,
            )
        save_file({"features": features}, folder / "features.safetensors")
        write_json(folder / "ids.json", [prompt.id for prompt in prompts])

    def _cluster(self, folder: Path) -> None:
        features = load_file(self.plan.train_features.folder / "features.safetensors")["features"]
        assignment = self.it.clustering(features.numpy(), self.it.seed)
        dealt = random_clusters(assignment, self.it.seed)
        tensors = {
            "assignment": torch.from_numpy(assignment),
            "random": torch.from_numpy(dealt),
            "centroids": centroids(features, torch.from_numpy(assignment)),
        }
        examples = self._kept("train")
        found = quality(
            features.numpy(),
            assignment,
            [e.source for e in examples],
            [e.category for e in examples],
        )
        save_file(tensors, folder / "clusters.safetensors")
        write_json(folder / "quality.json", found)

    def _score(self, adapters: dict[str, Stage], folder: Path) -> None:
        test = self.it.corpus.test
        encoded, too_long = self.prompter.test(test)
        questions = questions_of(
            encoded, [self.prompter.choices(e) for e in test], [e.answer for e in test]
        )
        routing = self._routing()
        clusters = routing.cosines.shape[1]
        lists = {name: s.members(clusters) for name, s in self.it.strategies.items()}
        names = list(dict.fromkeys(member for members in lists.values() for member in members))
        mixtures = {
            name: Mixture([names.index(m) for m in lists[name]], strategy.weights(routing))
            for name, strategy in self.it.strategies.items()
        }
        joint = JointModel(
            self.backbone.model,
            [None if name == BACKBONE else self._tensors(name) for name in names],
        )
        with self.progress(f"score, {len(names)} members", len(questions)) as advance:
            outcomes = score(
                joint, questions, mixtures, batch_size=self.it.evaluation.batch_size,
                pad_id=self.backbone.pad_id, advance=advance,
            )  # fmt: skip
        write_json(
            folder / "outcomes.json", {name: asdict(outcome) for name, outcome in outcomes.items()}
        )
        write_json(folder / "too_long.json", too_long)

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

    def _kept(self, split: str) -> list[Example]:
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
        clusters = len(self.plan.read_clusters()["centroids"]) if self.plan.clustered else 1
        if not self.plan.routed:
            return Routing(torch.zeros(len(self.it.corpus.test), clusters), self.it.router)
        features = load_file(self.plan.test_features.folder / "features.safetensors")["features"]
        return Routing(cosines(features, self.plan.read_clusters()["centroids"]), self.it.router)

    def _result(self, scores: Stage) -> Result:
        routing, clustered = self._routing(), self.plan.clustered
        outcomes = read_json(scores.folder / "outcomes.json")
        return Result(
            outcomes={name: Outcome(**outcomes[name]) for name in self.it.strategies},
            routing=routing,
            weights={name: s.weights(routing) for name, s in self.it.strategies.items()},
            too_long=read_json(scores.folder / "too_long.json"),
            dropped=self.encoded_train[1],
            assignment=self.plan.read_clusters()["assignment"].tolist() if clustered else [],
            quality=read_json(self.plan.clusters.folder / "quality.json") if clustered else {},
        )
