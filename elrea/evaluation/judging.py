"""Judges the texts that strategies wrote; if there are several for a prompt, the most frequent answer counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from elrea.errors import ConfigError
from elrea.evaluation.draws import indices_to_generate
from elrea.evaluation.judge import Judged, check_name, judge_of, no_answer, reason
from elrea.evaluation.judge import check as check_judges
from elrea.evaluation.similarity import MEASURES, similarity
from elrea.evaluation.think import UNCLOSED, without_thinking
from elrea.method.ensemble.strategy import Strategy, Voting

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.evaluation.generation import Texts
    from elrea.evaluation.scoring import Outcome


def check(examples: Sequence[Example], by: str, strategies: Mapping[str, Strategy]) -> None:
    """Refuses test examples that cannot be judged, before anything is trained.

    Args:
        examples: The test examples.
        by: `evaluation.by`.
        strategies: By name.

    Raises:
        ConfigError: A strategy votes on likelihoods, and there are examples without choices; or texts are generated for
            plain text.
        DataError: An example names an unknown judge, whether or not texts are judged, or lacks something that its
            judge needs.
    """
    for example in {e.judge: e for e in reversed(examples)}.values():
        check_name(example)
    text = next((e for e in examples if e.plain_text), None) if by == "generation" else None
    if text:
        raise ConfigError(
            f"evaluation.by=generation: {text.id} is plain text, which is scored by its loss alone; set"
            " evaluation.by=auto, or give a data.test without plain text"
        )
    free = next((e for e in examples if not e.choices), None) if by == "likelihood" else None
    for name, strategy in strategies.items():
        if free and isinstance(strategy, Voting):
            raise ConfigError(
                f"ensemble={name} votes on given choices, and {free.id} has none: set evaluation.by=generation, or "
                "leave this strategy out"
            )
    judged = {i for s in strategies.values() for i in indices_to_generate(examples, by, s)}
    check_judges(examples[i] for i in sorted(judged))


def judge_texts(
    examples: Sequence[Example],
    texts: Texts,
    outcomes: Mapping[str, Outcome],
    advance: Callable[[int], object] = lambda _n: None,
    *,
    think: str = "strip",
    opened: Callable[[int], bool] = lambda _i: False,
) -> dict[str, Outcome]:
    """Judges examples by their texts; an example whose prompt was too long for a text is wrong.

    Args:
        examples: The test examples.
        texts: By mixture and index of the example.
        outcomes: By mixture, the outcomes by likelihood, if there are any.
        advance: Called with the number of texts that were judged since the last call.
        think: `evaluation.think`: whether think blocks are left out of texts and responses first.
        opened: Whether the prompt of the example with this index ends inside a think block.

    Returns:
        By mixture: `outcomes`, with the verdicts on `texts` in place of theirs.
    """
    from elrea.evaluation.scoring import Outcome

    n = len(examples)
    merged, bench = dict(outcomes), _Bench(examples, think == "strip", opened)
    for name, by_example in texts.items():
        outcome = merged.setdefault(name, Outcome.blank(n))
        outcome.text, outcome.answer, outcome.why = [None] * n, [None] * n, [None] * n
        outcome.similar = [None] * n
        for i, drawn in by_example.items():
            choices = examples[i].choices
            if not drawn:
                outcome.correct[i], outcome.choice[i] = False, None
                outcome.why[i] = "the prompt is too long to be followed by a text"
                outcome.similar[i] = None if choices else dict.fromkeys(MEASURES, 0.0)
                continue
            judged = [bench.verdict(i, text) for text in drawn]
            winner = majority(judged)
            verdict = judged[winner]
            outcome.text[i], outcome.answer[i] = drawn[winner], verdict.answer
            outcome.correct[i], outcome.why[i] = verdict.correct, reason(verdict, examples[i])
            outcome.choice[i] = choices.index(verdict.answer) if verdict.answer in choices else None
            outcome.similar[i] = None if choices else bench.similarity(i, drawn[winner])
            advance(len(drawn))
    return merged


@dataclass
class _Bench:
    """Verdicts on texts, each found once: strategies often write the same text.

    Attributes:
        examples: The test examples.
        strip: Whether think blocks are left out.
        opened: Whether a prompt ends inside one, by the example's index.
    """

    examples: Sequence[Example]
    strip: bool
    opened: Callable[[int], bool]
    _verdicts: dict[tuple[int, str], Judged] = field(default_factory=dict)
    _similar: dict[tuple[int, str], dict[str, float]] = field(default_factory=dict)

    def verdict(self, i: int, text: str) -> Judged:
        if (i, text) not in self._verdicts:
            given, example = self._given(i, text), self._wanted(i)
            judged = no_answer(UNCLOSED) if given is None else judge_of(example)(given, example)
            if not judged.correct and self._is_response(i, text):
                judged = Judged(True, " ".join(text.split()), "equal word for word")
            self._verdicts[i, text] = judged
        return self._verdicts[i, text]

    def similarity(self, i: int, text: str) -> dict[str, float]:
        if (i, text) not in self._similar:
            given = self._given(i, text) or ""
            self._similar[i, text] = similarity(given, self._wanted(i).response)
        return self._similar[i, text]

    def _given(self, i: int, text: str) -> str | None:
        """The text to be judged; None if its think block does not end.

        A text that is the response word for word has the response's answer, whatever markers are in it.
        """
        if self._is_response(i, text):
            return self._wanted(i).response
        return without_thinking(text, self.opened(i)) if self.strip else text

    def _is_response(self, i: int, text: str) -> bool:
        """Whether a text is the example's response word for word, and not the beginning of an opened think block."""
        words = text.split()
        return bool(words) and words == self.examples[i].response.split() and not self.opened(i)

    def _wanted(self, i: int) -> Example:
        """The example, with a response without thinking."""
        example = self.examples[i]
        if not self.strip or example.choices:
            return example
        return replace(example, response=without_thinking(example.response) or example.response)


def majority(judged: Sequence[Judged]) -> int:
    """Index of the text whose answer counts: the first text with the most frequent answer.

    Of equally frequent answers the one that was drawn first wins. Texts without an answer do not vote; if no text has
    an answer, the first text counts.
    """
    answers = [verdict.answer for verdict in judged]
    votes = Counter(answer for answer in answers if answer is not None)
    return answers.index(votes.most_common(1)[0][0]) if votes else 0
