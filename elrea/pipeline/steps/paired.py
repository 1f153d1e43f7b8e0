"""How much better the nearest expert answers each dev example than the trunk does: what a gate decides by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from elrea.method.ensemble.strategy import DevGated, trained_as
from elrea.method.routing.weights import Routing
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import TO_DO, Step
from elrea.pipeline.steps.decisions import CORRECT, LOSS, PAIRS
from elrea.pipeline.steps.members import member_adapter, no_prompts
from elrea.pipeline.steps.router import cosines_of
from elrea.store.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.evaluation.scoring import Outcome, Question
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage


@dataclass(frozen=True)
class DevComparison(Step):
    """Trunk and nearest expert on the dev examples, by likelihood.

    Attributes:
        strategy: Name of the strategy that decides by it.
        members: Its trunk, then its experts.
        clusters: C.
    """

    kind: ClassVar[str] = "paired"
    version: ClassVar[int] = 1
    oom_advice: ClassVar[str] = "evaluation.batch_size"

    strategy: str
    members: tuple[str, ...]
    clusters: int

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        if clusters is None:
            return []
        found = []
        for name in context.requirements.decided:
            members = tuple(
                context.experiment.strategies[name].members(no_prompts(context, clusters))
            )
            upstream = ["base", *dict.fromkeys(map(trained_as, members)), "clusters"]
            upstream += ["router" if context.learned_router else "features-dev"]
            found.append(
                cls(f"paired-{name}", tuple(dict.fromkeys(upstream)), name, members, clusters)
            )
        return found

    @classmethod
    def later(cls, context: Context, clusters: int | None) -> Sequence[tuple[str, str]]:
        return [
            (f"paired-{name}", TO_DO) for name in context.requirements.decided if clusters is None
        ]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        router = context.experiment.router
        return {
            "base": upstream["base"].key,
            "members": [upstream[trained_as(name)].key for name in self.members],
            "clusters": upstream["clusters"].key,
            "routed": upstream["router" if context.learned_router else "features-dev"].key,
            "router": key_fields(router, *router.report_fields),
            "prompts": context.prompts,
            "dev": context.experiment.corpus.fingerprint("dev"),
        }

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        from elrea.evaluation.scoring import Mixture, questions_of, score
        from elrea.method.ensemble.joint import JointModel

        experiment, dev = context.experiment, context.kept("dev")
        strategy = experiment.strategies[self.strategy]
        assert isinstance(strategy, DevGated)
        routing = Routing(self._cosines(context, upstream), experiment.router)
        weights = strategy.serving(range(self.clusters)).weights(routing)
        encoded, _ = context.prompter.test(dev)
        choices = [context.prompter.choices(e) for e in dev]
        questions = questions_of(encoded, choices, [e.answer for e in dev])
        joint = JointModel(
            context.backbone.model, [member_adapter(name, upstream) for name in self.members]
        )
        columns = range(len(self.members))
        trunk = torch.zeros_like(weights)
        trunk[:, 0] = 1
        mixed = {"trunk": Mixture(columns, trunk), "nearest": Mixture(columns, weights)}
        with context.task(self.name, f"gate of {self.strategy}, dev", len(dev)) as task:
            found = score(
                joint, questions, mixed, batch_size=experiment.evaluation.batch_size,
                pad_id=context.backbone.pad_id, advance=task.advance,
            )  # fmt: skip
        rows = _rows(questions, weights, found["trunk"], found["nearest"])
        every = all(example.answer is not None for example in dev)
        content = {"measure": CORRECT if every else LOSS, "clusters": self.clusters}
        write_json(
            folder / PAIRS,
            {**content, "examples": dict(zip((e.id for e in dev), rows, strict=True))},
        )

    def _cosines(self, context: Context, upstream: Mapping[str, Stage]) -> Tensor:
        """How near the dev prompts are to the clusters, as a test prompt is routed [n, C]."""
        experiment, dev, router = context.experiment, context.kept("dev"), context.learned_router
        if router is None:
            return cosines_of(upstream["features-dev"], upstream["clusters"], len(dev))
        prompts = context.prompter.routing(dev)
        with (
            context.peft(experiment.lora) as model,
            context.progress("route, dev prompts", len(prompts), "prompts") as advance,
        ):
            return router.predict(
                upstream["router"].folder, model, upstream["base"].folder / "adapter", prompts,
                pad_id=context.backbone.pad_id, advance=advance,
            )  # fmt: skip


def _rows(
    questions: Sequence[Question], weights: Tensor, trunk: Outcome, nearest: Outcome
) -> list[dict[str, Any] | None]:
    """Of each dev example its cluster, and correctness and loss of trunk and expert; None where there is none."""
    clusters = (weights.argmax(1) - 1).tolist()
    return [
        {
            "cluster": cluster,
            CORRECT: [trunk.correct[i], nearest.correct[i]],
            LOSS: [trunk.loss[i], nearest.loss[i]],
        }
        if cluster >= 0 and questions[i].scorable
        else None
        for i, cluster in enumerate(clusters)
    ]
