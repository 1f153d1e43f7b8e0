"""The last stages: what each strategy writes, and how all strategies score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from elrea.evaluation.generation import Draws, Texts, read_texts, write_texts, written
from elrea.evaluation.judging import judge_texts
from elrea.evaluation.scoring import Mixture, Outcome, mixtures, questions_of, score, settle
from elrea.method.ensemble.decoding import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.strategy import Strategy
from elrea.method.routing.student import read_cosines
from elrea.method.routing.weights import Routing
from elrea.pipeline.chosen import ChosenStages
from elrea.store.files import write_json
from elrea.store.stage import Stage

SHOTS = "shots.json"
"""Beside the scores, where test examples have shots."""


class ScoredStages(ChosenStages):
    """What makes them, on what the stages before have made."""

    def _write(self, name: str, adapters: dict[str, Stage], folder: Path) -> None:
        """What one strategy writes."""
        it, strategy = self.it, self.it.strategies[name]
        own = it.evaluation
        chosen = written(it.corpus.test, own.by, strategy)
        encoded, _ = self.prompter.test([it.corpus.test[i] for i in chosen], own.max_new_tokens)
        prompts = {i: e.prompt for i, e in zip(chosen, encoded, strict=True)}
        long = [i for i, prompt in prompts.items() if not prompt]
        draws = Draws.of(strategy)
        joint, mixed = self._mixed({name: strategy}, adapters)
        total = (len(prompts) - len(long)) * draws.samples * len(mixed)
        with self.progress(f"answers of {name}", total) as advance:
            write_texts(
                folder, {i: prompt for i, prompt in prompts.items() if prompt}, joint, mixed,
                Decoding(own.max_new_tokens, stop=own.stop), draws, self.backbone.tokenizer,
                pad_id=self.backbone.pad_id, batch_size=own.batch_size, too_long=long, advance=advance,
            )  # fmt: skip

    def _score(self, adapters: dict[str, Stage], folder: Path) -> None:
        strategies, test, too_long = self.it.strategies, self.it.corpus.test, set[str]()
        found: dict[str, Outcome] = {}
        if self.it.evaluation.by != "generation":
            found, long = self._likelihoods(adapters)
            too_long.update(long)
        texts: Texts = {}
        for stage in self.plan.answers(adapters).values():
            texts |= read_texts(stage.folder)
        too_long.update(test[i].id for t in texts.values() for i, drawn in t.items() if not drawn)
        if texts:
            total = sum(len(drawn) for each in texts.values() for drawn in each.values())
            with self.progress("judge answers", total) as advance:
                found = judge_texts(test, texts, found, advance)
        outcomes = settle(found, strategies, self._routing())
        rows = {
            name: {kind: value for kind, value in asdict(o).items() if value}
            for name, o in outcomes.items()
        }
        write_json(folder / "outcomes.json", rows)
        order = [example.id for example in test if example.id in too_long]
        write_json(folder / "too_long.json", order)
        if any(example.shots for example in test):
            write_json(folder / SHOTS, self._shots())

    def _shots(self) -> list[int]:
        """Of each test prompt, how many of its solved examples fitted; where a text was written, before that."""
        test, own = self.it.corpus.test, self.it.evaluation
        wrote = {i for s in self.it.strategies.values() for i in written(test, own.by, s)}
        rooms = (own.max_new_tokens if i in wrote else None for i in range(len(test)))
        return [
            self.prompter.test([example], room)[0][0].shots
            for example, room in zip(test, rooms, strict=True)
        ]

    def _likelihoods(self, adapters: dict[str, Stage]) -> tuple[dict[str, Outcome], list[str]]:
        """Outcomes by one pass over the test prompts, and the ids of those that are too long."""
        test = self.it.corpus.test
        encoded, too_long = self.prompter.test(test)
        choices = [self.prompter.choices(e) for e in test]
        questions = questions_of(encoded, choices, [e.answer for e in test])
        joint, mixed = self._mixed(self.it.strategies, adapters)
        if self.it.evaluation.mean_logits:
            mixed = {name: mixture.mean() for name, mixture in mixed.items()}
        with self.progress(f"score, {joint.count} members", len(questions)) as advance:
            found = score(
                joint, questions, mixed, batch_size=self.it.evaluation.batch_size,
                pad_id=self.backbone.pad_id, advance=advance,
            )  # fmt: skip
        return found, too_long

    def _mixed(
        self, strategies: Mapping[str, Strategy], adapters: dict[str, Stage]
    ) -> tuple[JointModel, dict[str, Mixture]]:
        return mixtures(
            strategies, self._routing(), self.backbone.model, self._tensors,
            lambda name: self._gates(name, adapters),
        )  # fmt: skip

    def _routing(self) -> Routing:
        """Where no strategy weighs prompt by prompt, all cosines are 0."""
        plan, sources = self.plan, [example.source for example in self.it.corpus.test]
        if plan.distils:
            found = read_cosines(plan.routing.folder)
        elif plan.routed:
            found = self._cosines(plan.test_features, len(sources))
        else:
            found = torch.zeros(len(sources), plan.count or 1)
        return Routing(found, self.it.router, sources, plan.needs.sources)
