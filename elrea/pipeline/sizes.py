"""The amount of text in a run: measured with the tokenizer, or upper bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elrea.evaluation.draws import Draws, indices_to_generate

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.pipeline.experiment import Experiment

SAMPLE = 2_000
"""Maximum number of examples of a split that are tokenised; the totals are extrapolated from them."""


@dataclass(frozen=True)
class Sizes:
    """Amount of text in a run.

    Attributes:
        train: Number of training examples.
        test: Number of test prompts.
        train_tokens: Tokens of all training prompts and responses.
        prompt_tokens: Tokens of all training prompts.
        test_tokens: Tokens of all test prompts as they are scored: with the solved examples (shots) that fit.
        routed_tokens: Tokens of all test prompts as they are routed: without shots.
        texts: Number of texts that the strategies generate, all samples included.
        longest: Tokens of the longest training example that fits.
        response: Most tokens of one training example that carry loss.
        measured: True if tokens were counted, False if the figures are upper bounds.
        dropped: Number of training examples that are too long.
    """

    train: int
    test: int
    train_tokens: int
    prompt_tokens: int
    test_tokens: int
    routed_tokens: int
    texts: int
    longest: int
    response: int
    measured: bool
    dropped: int = 0

    @property
    def fitting(self) -> int:
        """Number of training examples that are trained on."""
        return self.train - self.dropped

    @classmethod
    def upper_bounds(cls, experiment: Experiment, train: int, test: int) -> Sizes:
        """Upper bounds for data or a tokenizer that is not on this machine: every example has the maximum length."""
        room = experiment.backbone.max_length
        all_of_it = experiment.training.loss_on == "all"
        response = room if all_of_it else min(experiment.evaluation.max_new_tokens, room)
        tested, drawn = test * room, [Draws.of(s).samples for s in experiment.strategies.values()]
        texts = test * sum(drawn) * (experiment.evaluation.by == "generation")
        return cls(
            train, test, train * room, train * room, tested, tested, texts, room, response, False
        )

    @classmethod
    def measure(cls, experiment: Experiment) -> Sizes:
        """Counts tokens with the backbone's tokenizer.

        Raises:
            ElreaError: The prompt of an example cannot be built, or no training example fits.
        """
        from elrea.models.training.batches import items

        prompter = experiment.prompter
        train, test = experiment.corpus.train, experiment.corpus.test
        encoded, dropped = prompter.train(_sample(train))
        learned = items(encoded, experiment.training.loss_on)
        share = len(train) / (len(encoded) + len(dropped))
        tested = _sample(test)
        by, most = experiment.evaluation.by, experiment.evaluation.max_new_tokens
        scored, _ = prompter.test(tested, most if by == "generation" else None)
        texts = sum(
            len(indices_to_generate(test, by, strategy)) * Draws.of(strategy).samples
            for strategy in experiment.strategies.values()
        )
        scale = len(test) / len(tested)
        return cls(
            len(train), len(test),
            round(share * sum(e.length for e in encoded)),
            round(share * sum(len(e.prompt) for e in encoded)),
            round(scale * sum(len(e.prompt) for e in scored)),
            round(scale * sum(len(e.prompt) for e in prompter.routing(tested))),
            texts, max(e.length for e in encoded), max(item.counted for item in learned), True,
            round(share * len(dropped)),
        )  # fmt: skip


def _sample(examples: Sequence[Example]) -> list[Example]:
    """At most SAMPLE examples, evenly spaced."""
    step = -(-len(examples) // SAMPLE)
    return list(examples[::step])
