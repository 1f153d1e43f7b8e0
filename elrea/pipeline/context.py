"""What the steps of one experiment share: backbone, prompts, encoded examples, and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from elrea.data.expressible import check
from elrea.method.ensemble.requirements import Requirements
from elrea.method.routing.weights import LearnedRouter
from elrea.models.log import SILENT, Log, Task
from elrea.models.start import check_start, checksum
from elrea.models.training.pass_cost import config_draws
from elrea.models.training.settings import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel
    from torch import Tensor

    from elrea.data.examples import Example
    from elrea.data.prompts import Encoded, Prompter
    from elrea.models.adapter_shape import Lora
    from elrea.models.backbone import Backbone
    from elrea.models.vocabulary import Vocabulary
    from elrea.pipeline.experiment import Experiment

log = logging.getLogger(__name__)


class Context:
    """One experiment at work. What is expensive is made when a step first asks for it.

    Args:
        experiment: What to do.
        log: Listens to the work.
        here: Whether data and backbone are on this machine; else the steps can be listed, but have no keys.
        part: Of the strategy whose clusters come from features of its own: its name.
        within: The context of which this is a part; its backbone and prompts are shared.
        base_epochs: Epochs of the base adapter that features are taken with; None: training.epochs.
    """

    def __init__(
        self,
        experiment: Experiment,
        log: Log = SILENT,
        *,
        here: bool = True,
        part: str = "",
        within: Context | None = None,
        base_epochs: int | None = None,
    ) -> None:
        self.experiment, self.log, self.here, self.part, self.within = (
            experiment, log, here, part, within,
        )  # fmt: skip
        self.base_epochs: int = experiment.training.epochs if base_epochs is None else base_epochs

    @cached_property
    def requirements(self) -> Requirements:
        """What the strategies need between them."""
        experiment = self.experiment
        return Requirements(
            experiment.strategies,
            experiment.lora,
            experiment.training,
            experiment.corpus.train_sources,
            experiment.features,
        )

    @property
    def learned_router(self) -> LearnedRouter | None:
        """The router that prompts are routed by, if it is a learned one; None too where none is routed."""
        router = self.experiment.router
        return router if self.requirements.routed and isinstance(router, LearnedRouter) else None

    @property
    def compares(self) -> bool:
        """Whether the test prompts' features are taken: to route by, or to judge the run's learned router.

        A part's learned router is not judged: no report has its figures.
        """
        judged = not (self.part and self.learned_router)
        return self.requirements.routed and judged and self.experiment.router.takes_features()

    @cached_property
    def prompts(self) -> dict[str, Any]:
        """What decides a prompt's token ids beside the examples; a part of stages' keys."""
        if self.within:
            return self.within.prompts
        return self.experiment.prompts() if self.here else {}

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen model."""
        if self.within:
            return self.within.backbone
        return self.experiment.backbone.load(self.experiment.device)

    @cached_property
    def backbone_draws(self) -> bool:
        """Whether the backbone has dropout of its own, which training draws; it is not loaded."""
        if self.within:
            return self.within.backbone_draws
        return self.here and config_draws(self.experiment.backbone.config())

    @property
    def prompter(self) -> Prompter:
        """Words examples."""
        return self.within.prompter if self.within else self.experiment.prompter

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The token ids that the backbone has; it is not loaded for them."""
        if self.within:
            return self.within.vocabulary
        return self.experiment.backbone.vocabulary(self.prompter.tokenizer)

    @cached_property
    def start(self) -> str | None:
        """SHA-256 of the adapter from which the base adapter starts; None: from a fresh one."""
        if self.within:
            return self.within.start
        start = self.experiment.lora.start
        return None if start is None else checksum(start)

    def check(self) -> None:
        """Refuses what does not fit the backbone, before anything is trained; the backbone is not loaded.

        Raises:
            DataError: An example with a token that the backbone has no row for.
            ConfigError: `adapter.start` is for another backbone.
        """
        if self.experiment.lora.start is not None:
            check_start(self.experiment.lora, self.experiment.backbone.config())
        if not self.vocabulary.outside:
            return
        prompter, corpus = self.prompter, self.experiment.corpus
        for example in (*corpus.train, *corpus.dev, *corpus.test):
            encoded = prompter.encode(example)
            choices = [token for choice in prompter.choices(example) for token in choice]
            ids = [*encoded.prompt, *encoded.response, *choices]
            self.vocabulary.check(ids, example.id, chat=prompter.chat)

    @cached_property
    def encoded_train(self) -> tuple[list[Encoded], list[str]]:
        """Training examples that fit, and the ids of those that do not."""
        if self.within:
            return self.within.encoded_train
        return self.prompter.train(self.experiment.corpus.train)

    @property
    def epochs_begun(self) -> int:
        """Epochs of the base adapter that begin before `training.max_steps` ends its training."""
        training = self.experiment.training
        recipe = Recipe(self.base_epochs, training.learning_rate, training)
        return recipe.epochs_begun(len(self.encoded_train[0]))

    @cached_property
    def losses(self) -> tuple[str, ...]:
        """What the tokenizer loses of the data, a line for each source and kind; the log counts it.

        Raises:
            DataError: Choices become the same tokens, or a whole split is lost.
        """
        if self.within:
            return self.within.losses
        found = check(self.prompter, self.experiment.corpus)
        if found:
            log.warning(
                "the tokenizer cannot express all of the data: it loses or changes a part of %s,"
                " which the report lists",
                found.summary(),
            )
        return tuple(found.lines())

    def kept(self, split: str) -> list[Example]:
        """Examples whose prompts get features: all dev or test examples, and the training examples that fit."""
        if split != "train":
            corpus = self.experiment.corpus
            return list(corpus.dev if split == "dev" else corpus.test)
        dropped = set(self.encoded_train[1])
        return [e for e in self.experiment.corpus.train if e.id not in dropped]

    @contextmanager
    def peft(self, lora: Lora) -> Iterator[PeftModel]:
        """The backbone with one adapter around it, which is taken off again."""
        from elrea.models.lora import attach, detach

        model = attach(self.backbone.model, lora, self.experiment.seed)
        try:
            yield model
        finally:
            detach(model)

    def task(
        self, name: str, text: str, total: int, steps: int = 0, unit: str = "examples"
    ) -> AbstractContextManager[Task]:
        """Opens a piece of work in the log (see `Log.task`), named after the part that it belongs to."""
        if self.part:
            name, text = f"{self.part}/{name}", f"{self.part}: {text}"
        return self.log.task(name, text, total, steps, unit)

    @contextmanager
    def progress(
        self, text: str, total: int, unit: str = "examples"
    ) -> Iterator[Callable[[int], None]]:
        """The same for work without training steps; yields `advance`."""
        with self.task("", text, total, unit=unit) as task:

            def advance(count: int) -> None:
                task.advance(count)

            yield advance

    def features_of(
        self, examples: list[Example], epochs: list[Path], text: str = "features"
    ) -> Tensor:
        """δ of any examples' prompts [n, d]; zeros where a prompt has none.

        Args:
            examples: Any.
            epochs: The base adapter and Adam's moments at each epoch's end.
            text: What the log shows.
        """
        from elrea.method.features.gradient import extract

        encoded = self.prompter.routing(examples)
        for prompt in encoded:
            self.vocabulary.check(prompt.prompt, prompt.id, chat=self.prompter.chat)
        with (
            self.peft(self.experiment.lora) as model,
            self.progress(text, len(examples) * len(epochs), "prompts x epochs") as advance,
        ):
            return extract(
                model, epochs, encoded, self.experiment.features,
                pad_id=self.backbone.pad_id, tokenizer=self.backbone.tokenizer, advance=advance,
            )  # fmt: skip
