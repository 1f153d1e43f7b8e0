"""The last step: every strategy scored on the test items, by likelihood or by its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elrea.evaluation.draws import indices_to_generate
from elrea.evaluation.judge import VERSION as JUDGES_VERSION
from elrea.evaluation.judge import name_of, plugin_sources
from elrea.evaluation.judges.letter import lower_case
from elrea.evaluation.think import may_open, opens
from elrea.method.ensemble.strategy import Tagging
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import TO_DO, Step
from elrea.pipeline.steps.adapters import Adapter
from elrea.pipeline.steps.answers import Answers
from elrea.pipeline.steps.gates import Gates
from elrea.pipeline.steps.members import prompt_mixtures, prompt_routing, prompts_of, routed_by
from elrea.pipeline.steps.paired import DevComparison
from elrea.store.files import read_json, write_json

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.evaluation.generation import Texts
    from elrea.evaluation.scoring import Outcome
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage

OUTCOMES, TOO_LONG, SHOTS = "outcomes.json", "too_long.json", "shots.json"
"""Files of the stage; the last one only where test examples have shots."""


_TAIL = 32
"""Tokens at a prompt's end in which an opening marker of a think block is looked for."""


@dataclass(frozen=True)
class Scores(Step):
    """Routes, mixes and scores (section 3 of the method).

    Attributes:
        members: Adapters beside the base.
        gates: Steps that train gates.
        paired: Steps by which strategies decide who serves.
        answers: Steps that write texts.
        clusters: C.
    """

    kind: ClassVar[str] = "scores"
    version: ClassVar[int] = 1
    oom_advice: ClassVar[str] = "evaluation.batch_size"

    members: tuple[str, ...]
    gates: tuple[str, ...]
    paired: tuple[str, ...]
    answers: tuple[str, ...]
    clusters: int

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        known = context.requirements
        if clusters is None and not known.any_count:
            return []
        members, gates, paired, answers = (
            tuple(step.name for step in kind.of(context, clusters))
            for kind in (Adapter, Gates, DevComparison, Answers)
        )
        upstream = ["base", *members, *gates, *paired, *answers]
        upstream += ["clusters"] if known.clustered else []
        upstream += [routed_by(context)] if known.routed else []
        return [cls("scores", tuple(upstream), members, gates, paired, answers, clusters or 1)]

    @classmethod
    def later(cls, context: Context, clusters: int | None) -> Sequence[tuple[str, str]]:
        return [] if cls.of(context, clusters) else [("scores", TO_DO)]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        experiment, known = context.experiment, context.requirements
        gates = {name.removeprefix("gates-"): upstream[name].key for name in self.gates}
        inputs: dict[str, Any] = {
            "base": upstream["base"].key,
            "members": {**{name: upstream[name].key for name in self.members}, **gates},
            "strategies": {name: key_fields(s) for name, s in experiment.strategies.items()},
            "router": key_fields(experiment.router, *experiment.router.report_fields),
            "clusters": upstream["clusters"].key if known.clustered else None,
            "prompts": upstream[routed_by(context)].key if known.routed else context.prompts,
            "test": experiment.test,
        }
        if self.paired:
            inputs["paired"] = {n.removeprefix("paired-"): upstream[n].key for n in self.paired}
        if experiment.evaluation.mean_logits:
            inputs["mean_logits"] = True
        if self.answers:
            inputs["answers"] = {
                name.removeprefix("answers-"): upstream[name].key for name in self.answers
            }
            inputs["judges"] = JUDGES_VERSION
            if outside := plugin_sources(experiment.corpus.test):
                inputs["plugin_judges"] = outside
            if _small_letters(experiment.corpus.test):
                inputs["small_letters"] = "may be words"
            inputs["loss"] = experiment.evaluation.by != "generation"
            if experiment.evaluation.think != "strip":
                inputs["think"] = experiment.evaluation.think
        return inputs

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        from elrea.evaluation.generation import read_texts
        from elrea.evaluation.judging import judge_texts
        from elrea.evaluation.scoring import combine_picked

        experiment, test, too_long = context.experiment, context.experiment.corpus.test, set[str]()
        found: dict[str, Outcome] = {}
        if experiment.evaluation.by != "generation":
            found, long = self._likelihoods(context, upstream)
            too_long.update(long)
        texts: Texts = {}
        for name in self.answers:
            texts |= read_texts(upstream[name].folder)
        too_long.update(test[i].id for t in texts.values() for i, drawn in t.items() if not drawn)
        if texts:
            total = sum(len(drawn) for each in texts.values() for drawn in each.values())
            with context.progress("judge answers", total, "texts") as advance:
                found = judge_texts(
                    test, texts, found, advance, think=experiment.evaluation.think, opened=_opened(context),
                )  # fmt: skip
        outcomes = combine_picked(
            found, experiment.strategies, prompt_routing(context, upstream, self.clusters)
        )
        rows = {
            name: {field: value for field, value in asdict(outcome).items() if value}
            for name, outcome in outcomes.items()
        }
        write_json(folder / OUTCOMES, rows)
        write_json(folder / TOO_LONG, [example.id for example in test if example.id in too_long])
        if any(example.shots for example in test):
            write_json(folder / SHOTS, _shots(context))

    def _likelihoods(
        self, context: Context, upstream: Mapping[str, Stage]
    ) -> tuple[dict[str, Outcome], list[str]]:
        """Outcomes by one pass over the test prompts, and the ids of those that are too long."""
        strategies = context.experiment.strategies
        alike = [name for name in strategies if not isinstance(strategies[name], Tagging)]
        found: dict[str, Outcome] = {}
        too_long: list[str] = []
        # A strategy that tags its prompts has passes of its own.
        for names in (alike, *([name] for name in strategies if name not in alike)):
            if names:
                outcomes, long = self._likelihoods_of(names, context, upstream)
                found |= outcomes
                too_long += long
        return found, too_long

    def _likelihoods_of(
        self, names: list[str], context: Context, upstream: Mapping[str, Stage]
    ) -> tuple[dict[str, Outcome], list[str]]:
        """The same for strategies with the same prompts."""
        from elrea.evaluation.scoring import questions_of, score

        experiment = context.experiment
        test = prompts_of(experiment.strategies[names[0]], context, upstream, self.clusters)
        encoded, too_long = context.prompter.test(test)
        choices = [context.prompter.choices(e) for e in test]
        questions = questions_of(
            encoded, choices, [e.answer for e in test], [e.choices for e in test]
        )
        joint, mixed = prompt_mixtures(context, upstream, names, self.clusters)
        if experiment.evaluation.mean_logits:
            mixed = {name: mixture.mean() for name, mixture in mixed.items()}
        inside = (mixture.model.count for mixture in mixed.values() if mixture.model)
        members = joint.count or max(inside)
        text = f"score, {members} members" if members > 1 else "score, 1 member"
        with context.task(self.name, text, len(questions)) as task:
            found = score(
                joint, questions, mixed, batch_size=experiment.evaluation.batch_size,
                pad_id=context.backbone.pad_id, advance=task.advance,
            )  # fmt: skip
        return found, too_long


def _opened(context: Context) -> Callable[[int], bool]:
    """Whether the prompt of a test example ends inside a think block, by the example's index."""
    test, prompter = context.experiment.corpus.test, context.prompter
    room = context.experiment.evaluation.max_new_tokens
    template = str(getattr(prompter.tokenizer, "chat_template", ""))

    @cache
    def opened(i: int) -> bool:
        if not prompter.chat:
            return opens(test[i].instruction)
        if not may_open(template):
            return False
        prompt = prompter.test([test[i]], room)[0][0].prompt
        return opens(str(prompter.tokenizer.decode(list(prompt[-_TAIL:]))))

    return opened


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """By strategy, what the finished stage says of every test item."""
    from elrea.evaluation.scoring import Outcome

    return {name: Outcome(**row) for name, row in read_json(folder / OUTCOMES).items()}


def read_shots(folder: Path) -> list[int]:
    """Of each test prompt, how many of its solved examples had room; empty where none has any."""
    return read_json(folder / SHOTS) if (folder / SHOTS).is_file() else []


def _small_letters(examples: Iterable[Example]) -> bool:
    """Whether a lower-case letter is an answer: older versions took each such letter for one, the article "a" too."""
    return any(name_of(e) == "letter" and lower_case(e.choices) for e in examples)


def _shots(context: Context) -> list[int]:
    """The same, counted; where a text was written, as it was before the text."""
    test, own = context.experiment.corpus.test, context.experiment.evaluation
    wrote = {
        i
        for s in context.experiment.strategies.values()
        for i in indices_to_generate(test, own.by, s)
    }
    rooms = (own.max_new_tokens if i in wrote else None for i in range(len(test)))
    return [
        context.prompter.test([example], room)[0][0].shots
        for example, room in zip(test, rooms, strict=True)
    ]
