"""The method, stage after stage.

    corpus -> base adapter (+ moments per epoch) -> features -> clusters -> experts
           -> features of the test prompts -> routing -> members' logits -> one mix per strategy -> scores

Every stage is kept in the store under a key of what went into it, so that any later run that asks for the same
reuses it. What an adapter, a feature or a weight is stands in the rooms that this page calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from elrea.evaluation.scoring import Outcome
from elrea.method.clustering.assignment import QUALITY, make_clusters
from elrea.method.ensemble.strategy import BASE, Regrouped
from elrea.method.features.to_disk import read_skipped, stream
from elrea.method.routing.weights import Router, Routing
from elrea.models.log import OnlyProgress
from elrea.models.training.settings import Recipe
from elrea.models.training.train import train_adapter
from elrea.pipeline.chosen import Progress
from elrea.pipeline.experiment import Experiment, Result
from elrea.pipeline.memory import explained
from elrea.pipeline.scored import SHOTS, ScoredStages
from elrea.pipeline.until import check, needed
from elrea.store.files import read_json
from elrea.store.stage import Stage, Store


class Pipeline(ScoredStages):
    """One experiment against one store.

    Args:
        experiment: What to do.
        store: Where stages are kept.
        progress: Makes a progress bar.
        within: The pipeline of which this one is a part, whose backbone it uses.

    Attributes:
        parts: By name, what strategies need that group the examples by features of their own.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: Store,
        progress: Progress,
        within: Pipeline | None = None,
    ) -> None:
        regrouped = {
            name: strategy
            for name, strategy in experiment.strategies.items()
            if isinstance(strategy, Regrouped) and not within
        }
        own = {name: s for name, s in experiment.strategies.items() if name not in regrouped}
        super().__init__(replace(experiment, strategies=own), store, within)
        self.order, self.progress = list(experiment.strategies), progress
        self.parts = {
            name: Pipeline(
                replace(
                    experiment,
                    features=strategy.features,
                    strategies={name: strategy},
                    router=Router(experiment.router.temperature, experiment.router.renormalise),
                ),
                store,
                partial(_named, progress, name),
                self,
            )
            for name, strategy in regrouped.items()
        }

    def prepare(self, until: str) -> None:
        """Makes one stage, and what it stands on, as far as that is not there yet.

        Raises:
            ConfigError: There is no stage of that name, which was open as long as the number of clusters was.
        """
        for name, stage, make in self._work():
            if needed(name, until):
                with explained(name):
                    stage.run(make)
            if name == until:
                return
        check(until, self.plan.stages(), counted=True)

    def run(self) -> Result:
        """Makes what is not there yet, and reads the result."""
        reused: dict[str, bool] = {}
        for name, stage, make in self._work():
            with explained(name):
                stage.run(make)
            reused[name] = stage.reused
        result = self._result(stage, reused)
        for name, part in self.parts.items():
            found = part.run()
            result.outcomes.update(found.outcomes)
            result.weights.update(found.weights)
            result.reused.update({f"{name}/{s}": was for s, was in found.reused.items()})
        outcomes = {name: result.outcomes[name] for name in self.order}
        return replace(result, outcomes=outcomes)

    def stages(self) -> dict[str, Stage]:
        """Every stage by name, those of a part that are not the whole's own as `part/stage`."""
        stages = self.plan.stages()
        keys = {stage.key for stage in stages.values()}
        for name, part in self.parts.items():
            mine = {f"{name}/{s}": stage for s, stage in part.stages().items()}
            stages |= {s: stage for s, stage in mine.items() if stage.key not in keys}
        return stages

    def _work(self) -> Iterator[tuple[str, Stage, Callable[[Path], None]]]:
        """Stages and what makes them, one after the other: how many experts there are shows on the way."""
        plan = self.plan
        yield "base", plan.base, partial(self._train, BASE)
        if plan.clustered:
            yield "features-train", plan.train_features, partial(self._extract, "train")
            yield "clusters", plan.clusters, self._cluster
        if plan.distils:
            yield "router", plan.router, self._distil
            yield "routing", plan.routing, self._predict
        adapters = plan.adapters()
        for name, stage in adapters.items():
            yield name, stage, partial(self._train, name)
        for name, stage in plan.gates(adapters).items():
            yield f"gates-{name}", stage, partial(self._train_gates, name)
        if plan.graded:
            yield "features-test", plan.test_features, partial(self._extract, "test")
        for name, stage in plan.answers(adapters).items():
            yield f"answers-{name}", stage, partial(self._write, name, adapters)
        yield "scores", plan.scores(adapters), partial(self._score, adapters)

    def _train(self, name: str, folder: Path) -> None:
        job = self.plan.jobs[name] if name != BASE else None
        lora = job.lora if job else self.it.lora
        training = self.it.training
        recipe = Recipe(job.epochs, job.learning_rate, training) if job else training.base()
        encoded, seed = self._examples(job), job.seed(self.it.seed) if job else self.it.seed
        fitting, dev = self._fitting() if name == BASE else [], self._dev(job)
        with self.progress(f"train {name}", len(encoded) * recipe.epochs) as advance:
            if self.it.device.together > 1:
                from elrea.models.training.parallel import Work, train_shares

                start = self.plan.base.folder / "adapter" if job and job.from_base else None
                work = Work(
                    folder, encoded, recipe, self.it.backbone, lora, seed, name, start, name == BASE, self.it.device,
                    fitting, dev,
                )  # fmt: skip
                return train_shares(work, OnlyProgress(advance))
            base = self._tensors(BASE) if job and job.from_base else None
            with self._peft(lora) as model:
                for part in fitting:
                    part.fits(model)
                train_adapter(
                    model, encoded, recipe, pad_id=self.backbone.pad_id, lora=lora, base_name=self.backbone.name,
                    seed=seed, stage=name, folder=folder, start=base and base[0], keep_moments=name == BASE,
                    trainer=self.it.device.lightning(), dev=dev, task=OnlyProgress(advance),
                )  # fmt: skip

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
                from elrea.method.features.parallel import Work, stream_shares

                parts = (it.features, it.backbone, it.lora, self.epochs, it.device, it.seed)
                stream_shares(Work(folder, prompts, *parts), advance)

    def _cluster(self, folder: Path) -> None:
        make_clusters(
            folder, self.plan.train_features.folder, self.kept("train"), self.it.clustering, self.it.seed,
            unit=self.it.features.normalise,
        )  # fmt: skip

    def _result(self, scores: Stage, reused: dict[str, bool]) -> Result:
        routing, plan = self._routing(), self.plan
        outcomes = read_json(scores.folder / "outcomes.json")
        return Result(
            outcomes={name: Outcome(**outcomes[name]) for name in self.it.strategies},
            routing=routing,
            gradient=Routing(
                self._cosines(plan.test_features, len(routing.cosines)), self.it.router
            )
            if plan.distils and plan.graded
            else None,
            weights={name: s.weights(routing) for name, s in self.it.strategies.items()},
            too_long=read_json(scores.folder / "too_long.json"),
            shots=read_json(shown) if (shown := scores.folder / SHOTS).is_file() else [],
            dropped=self.encoded_train[1],
            skipped={
                "train": read_skipped(plan.train_features.folder) if plan.clustered else [],
                "test": read_skipped(plan.test_features.folder)
                if plan.routed and not plan.distils
                else [],
            },
            assignment=plan.read_clusters()["assignment"].tolist() if plan.clustered else [],
            quality=read_json(plan.clusters.folder / QUALITY) if plan.clustered else {},
            reused=reused,
        )


def _named(
    progress: Progress, name: str, text: str, total: int
) -> AbstractContextManager[Callable[[int], None]]:
    """A progress bar that says which part it is of."""
    return progress(f"{name}: {text}", total)
