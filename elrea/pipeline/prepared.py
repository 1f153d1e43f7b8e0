"""What the stages of one experiment share: the backbone, the prompts, finished adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from peft import PeftModel
from torch import Tensor

from elrea.data.examples import Example
from elrea.data.prompts import Encoded, Prompter
from elrea.method.ensemble.joint import Adapter
from elrea.method.ensemble.strategy import BACKBONE, BASE
from elrea.method.features.gradient import extract
from elrea.models import lora as lora_files
from elrea.models.backbone import Backbone
from elrea.models.lora import Lora
from elrea.models.training.train import epoch_folders
from elrea.pipeline.experiment import Experiment
from elrea.pipeline.plan import Plan
from elrea.store.stage import Store


class Prepared:
    """Made when a stage first needs it.

    Args:
        experiment: What to do.
        store: Where stages are kept.
        within: Of which this is a part: it uses that one's backbone.
    """

    def __init__(self, experiment: Experiment, store: Store, within: Prepared | None) -> None:
        self.it, self.plan, self.within = experiment, Plan(experiment, store), within

    @property
    def epochs(self) -> list[Path]:
        """The base adapter and its moments at each epoch's end."""
        return epoch_folders(self.plan.base.folder)

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen model, loaded when the first stage needs it."""
        if self.within:
            return self.within.backbone
        return self.it.backbone.load(self.it.device)

    @cached_property
    def prompter(self) -> Prompter:
        """Needs the tokenizer alone: where several processes share the work, only they load the backbone."""
        if self.within:
            return self.within.prompter
        return Prompter(
            self.it.backbone.tokenizer(),
            self.it.backbone.length(),
            self.it.backbone.use_chat_template,
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

    def _tensors(self, name: str) -> Adapter | None:
        """A finished adapter by its member's name; None for the bare backbone."""
        if name == BACKBONE:
            return None
        stage = self.plan.base if name == BASE else self.plan.adapters()[name]
        return lora_files.load(stage.folder / "adapter")

    def features_of(
        self, examples: list[Example], advance: Callable[[int], None] = lambda _n: None
    ) -> Tensor:
        """δ of any examples' prompts, by the finished base adapter: [n, d], zeros where there is none."""
        prompts = self.prompter.routing(examples)
        with self._peft(self.it.lora) as model:
            return extract(
                model, self.epochs, prompts, self.it.features,
                pad_id=self.backbone.pad_id, tokenizer=self.backbone.tokenizer, advance=advance,
            )  # fmt: skip
