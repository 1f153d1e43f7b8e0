"""The gates of layerwise strategies that train them (D.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elrea.method.ensemble.strategy import AdapterSpec, TrainedGates
from elrea.models.log import PASSES
from elrea.models.training.settings import Recipe
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import TO_DO, Step
from elrea.pipeline.steps.adapters import NOT_KEYED, Adapter, examples_of
from elrea.pipeline.steps.members import member_adapter, no_prompts

if TYPE_CHECKING:
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage


@dataclass(frozen=True)
class Gates(Step):
    """The gates of one strategy, trained while backbone and members are frozen.

    Attributes:
        strategy: Its name.
        spec: How long and on what they are trained.
        clusters: C.
    """

    kind: ClassVar[str] = "gates"
    version: ClassVar[int] = 1
    oom_advice: ClassVar[str] = Adapter.oom_advice

    strategy: str
    spec: AdapterSpec
    clusters: int

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        if clusters is None and not context.requirements.any_count:
            return []
        return [
            cls(f"gates-{name}", ("base", *members), name, spec, clusters or 1)
            for name, (spec, members) in context.requirements.gates(clusters or 1).items()
        ]

    @classmethod
    def later(cls, context: Context, clusters: int | None) -> Sequence[tuple[str, str]]:
        listed = {step.name for step in cls.of(context, clusters)}
        names = [f"gates-{name}" for name in context.requirements.gates(1)]
        return [(name, TO_DO) for name in names if name not in listed]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        experiment = context.experiment
        return {
            "strategy": key_fields(experiment.strategies[self.strategy]),
            "epochs": self.spec.epochs,
            "learning_rate": self.spec.learning_rate,
            "training": key_fields(experiment.training, *NOT_KEYED),
            "precision": experiment.device.precision,
            "seed": experiment.seed,
            "base": upstream["base"].key,
            "members": {name: upstream[name].key for name in self.upstream if name != "base"},
        }

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        from elrea.method.ensemble.gates import train_gates
        from elrea.method.ensemble.layerwise import LayerwiseModel

        experiment, strategy = context.experiment, context.experiment.strategies[self.strategy]
        assert isinstance(strategy, TrainedGates)
        names = strategy.members(no_prompts(context, self.clusters))
        members = [member_adapter(name, upstream) for name in names]
        layerwise = LayerwiseModel(context.backbone.model, members, strategy.delta)
        encoded = examples_of(self.spec, context, upstream)
        recipe = Recipe(self.spec.epochs, self.spec.learning_rate, experiment.training)
        total, steps = len(encoded) * recipe.epochs, recipe.steps(len(encoded))
        unit = "examples" if recipe.epochs == 1 else PASSES
        text = f"train gates of {self.strategy}"
        with context.task(self.name, text, total, steps, unit) as task:
            train_gates(
                layerwise, encoded, recipe, pad_id=context.backbone.pad_id, seed=experiment.seed, stage=self.name,
                folder=folder, trainer=experiment.device.lightning(), task=task,
            )  # fmt: skip
