"""The texts that a strategy writes, where texts are judged (5.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elrea.errors import ConfigError
from elrea.evaluation.draws import Draws, indices_to_generate
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.strategy import BACKBONE, trained_as
from elrea.models.ends import own_ends
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import TO_DO, Step
from elrea.pipeline.steps.members import no_prompts, prompt_mixtures, prompts_of, routed_by

if TYPE_CHECKING:
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage


@dataclass(frozen=True)
class Answers(Step):
    """What one strategy writes. It depends on that strategy's own members alone, so that sweeps share it.

    Attributes:
        strategy: Its name.
        members: The adapters that it mixes; "backbone" is none.
        clusters: C.
    """

    kind: ClassVar[str] = "answers"
    version: ClassVar[int] = 1
    oom_advice: ClassVar[str] = "evaluation.batch_size"

    strategy: str
    members: tuple[str, ...]
    clusters: int

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        if clusters is None and not context.requirements.any_count:
            return []
        if context.here:
            _check_room(context)
        gated, count = context.requirements.gates(clusters or 1), clusters or 1
        found = []
        for name in writers(context):
            strategy = context.experiment.strategies[name]
            members = tuple(strategy.members(no_prompts(context, count)))
            trained = dict.fromkeys(trained_as(member) for member in members)
            upstream = [stage for stage in trained if stage != BACKBONE]
            upstream += [f"gates-{name}"] if name in gated else []
            upstream += [f"paired-{name}"] if name in context.requirements.decided else []
            upstream += ["clusters", routed_by(context)] if strategy.routed else []
            found.append(cls(f"answers-{name}", tuple(upstream), name, members, count))
        return found

    @classmethod
    def later(cls, context: Context, clusters: int | None) -> Sequence[tuple[str, str]]:
        if not context.here and context.experiment.evaluation.by == "auto":
            return [("answers-*", "if the data names a judge")]
        listed = {step.name for step in cls.of(context, clusters)}
        names = [f"answers-{name}" for name in writers(context)]
        return [(name, TO_DO) for name in names if name not in listed]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        experiment, strategy = context.experiment, context.experiment.strategies[self.strategy]
        test, own = experiment.corpus.test, experiment.evaluation
        all_of_them = len(indices_to_generate(test, own.by, strategy)) == len(test)
        inputs: dict[str, Any] = {
            "strategy": key_fields(strategy),
            "members": {
                m: None if m == BACKBONE else upstream[trained_as(m)].key for m in self.members
            },
            "prompts": context.prompts,
            "test": experiment.test,
            "written": "all" if all_of_them else own.by,
            "max_new_tokens": own.max_new_tokens,
            "stop": own.stop,
        }
        if _stops_in_a_prompt(context):
            inputs["stops_in"] = "the answer"
        if context.prompter.stop:
            inputs["closing"] = list(context.prompter.stop)
        if ends := _new_ends(context):
            inputs["ends"] = ends
        if (gates := f"gates-{self.strategy}") in self.upstream:
            inputs["gates"] = upstream[gates].key
        if (paired := f"paired-{self.strategy}") in self.upstream:
            inputs["paired"] = upstream[paired].key
        if strategy.routed:
            inputs["routed"] = {
                "by": upstream[routed_by(context)].key,
                "router": key_fields(experiment.router, *experiment.router.report_fields),
                "clusters": upstream["clusters"].key,
            }
        return inputs

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        from elrea.evaluation.generation import write_texts

        experiment, strategy = context.experiment, context.experiment.strategies[self.strategy]
        own, backbone = experiment.evaluation, context.backbone
        chosen = indices_to_generate(experiment.corpus.test, own.by, strategy)
        examples = prompts_of(strategy, context, upstream, self.clusters)
        encoded, _ = context.prompter.test([examples[i] for i in chosen], own.max_new_tokens)
        prompts = {i: e.prompt for i, e in zip(chosen, encoded, strict=True)}
        too_long = [i for i, prompt in prompts.items() if not prompt]
        draws = Draws.of(strategy)
        joint, mixed = prompt_mixtures(context, upstream, [self.strategy], self.clusters)
        total = (len(prompts) - len(too_long)) * draws.samples * len(mixed)
        with context.task(self.name, f"answers of {self.strategy}", total, unit="texts") as task:
            write_texts(
                folder, {i: prompt for i, prompt in prompts.items() if prompt}, joint, mixed,
                _decoding(context), draws, backbone.tokenizer,
                pad_id=backbone.pad_id, batch_size=own.batch_size, too_long=too_long, advance=task.advance,
            )  # fmt: skip


def _decoding(context: Context) -> Decoding:
    """The length limit, and what ends a text."""
    own, prompter = context.experiment.evaluation, context.prompter
    return Decoding(own.max_new_tokens, stop=[*own.stop, *prompter.stop], ends=prompter.ends)


def _new_ends(context: Context) -> list[int]:
    """The ends of a chat template's turn that are no ends for the model itself: older versions wrote on behind them."""
    ends = context.prompter.ends
    return sorted({*ends}.difference(own_ends(context.experiment.backbone))) if ends else []


def writers(context: Context) -> list[str]:
    """Strategies that write any text; without the data, those that write whatever it is."""
    experiment = context.experiment
    if not context.here:
        return list(experiment.strategies) if experiment.evaluation.by == "generation" else []
    return [
        name
        for name, s in experiment.strategies.items()
        if indices_to_generate(experiment.corpus.test, experiment.evaluation.by, s)
    ]


def _stops_in_a_prompt(context: Context) -> bool:
    """Whether a stop text begins in a prompt, or with a space, which a tokenizer may leave out at the beginning of an
    answer: older versions ended such answers at once."""
    stop = context.experiment.evaluation.stop
    if any(text.startswith(" ") for text in stop):
        return True
    beginnings = tuple(text[:n] for text in stop for n in range(1, len(text)))
    render = context.prompter.template.render
    return bool(beginnings) and any(
        render(example, True).text.endswith(beginnings)
        for example in context.experiment.corpus.test
        if not example.plain_text
    )


def _check_room(context: Context) -> None:
    """Refuses texts that leave no room for prompts, before anything is trained."""
    experiment = context.experiment
    length = experiment.evaluation.max_new_tokens
    if writers(context) and length >= experiment.max_tokens:
        raise ConfigError(
            f"evaluation.max_new_tokens={length} leaves no room for a prompt in the {experiment.max_tokens} tokens of "
            "backbone.max_length; lower it, or raise that"
        )
