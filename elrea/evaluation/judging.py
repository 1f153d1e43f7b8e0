"""Judges the texts that strategies wrote; if there are several for a prompt, the most frequent answer counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from elrea.errors import ConfigError
from elrea.evaluation.draws import written
from elrea.evaluation.judge import Judged, check_name, judge_of
from elrea.evaluation.judge import check as check_judges
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
            " evaluation.by=auto"
        )
    free = next((e for e in examples if not e.choices), None) if by == "likelihood" else None
    for name, strategy in strategies.items():
        if free and isinstance(strategy, Voting):
            raise ConfigError(
                f"ensemble={name} votes on given choices, and {free.id} has none: set evaluation.by=generation, or "
                "leave this strategy out"
            )
    judged = {i for strategy in strategies.values() for i in written(examples, by, strategy)}
    check_judges(examples[i] for i in sorted(judged))


def judge_texts(
    examples: Sequence[Example],
    texts: Texts,
    outcomes: Mapping[str, Outcome],
    advance: Callable[[int], object] = lambda _n: None,
) -> dict[str, Outcome]:
    """Judges examples by their texts; an example whose prompt was too long for a text is wrong.

    Args:
        examples: The test examples.
        texts: By mixture and index of the example.
        outcomes: By mixture, the outcomes by likelihood, if there are any.
        advance: Called with the number of texts that were judged since the last call.

    Returns:
        By mixture: `outcomes`, with the verdicts on `texts` in place of theirs.
    """
    from elrea.evaluation.scoring import Outcome

    n = len(examples)
    merged = dict(outcomes)
    known: dict[tuple[int, str], Judged] = {}  # strategies often write the same text
    for name, by_example in texts.items():
        outcome = merged.setdefault(name, Outcome.blank(n))
        outcome.text, outcome.answer = [None] * n, [None] * n
        for i, drawn in by_example.items():
            example = examples[i]
            for text in drawn:
                if (i, text) not in known:
                    known[i, text] = judge_of(example)(text, example)
            judged = [known[i, text] for text in drawn]
            winner = majority(judged)
            answer = judged[winner].answer if drawn else None
            outcome.text[i], outcome.answer[i] = drawn[winner] if drawn else None, answer
            outcome.correct[i] = bool(drawn) and judged[winner].correct
            outcome.choice[i] = example.choices.index(answer) if answer in example.choices else None
            advance(len(drawn))
    return merged


def majority(judged: Sequence[Judged]) -> int:
    """Index of the text whose answer counts: the first text with the most frequent answer.

    Of equally frequent answers the one that was drawn first wins. Texts without an answer do not vote; if no text has
    an answer, the first text counts.
    """
    answers = [verdict.answer for verdict in judged]
    votes = Counter(answer for answer in answers if answer is not None)
    return answers.index(votes.most_common(1)[0][0]) if votes else 0
