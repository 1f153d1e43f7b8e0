"""From texts to outcomes: every text is read and judged, and of several the most frequent answer counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from elrea.data.examples import Example
from elrea.errors import ConfigError
from elrea.evaluation import judges
from elrea.evaluation.generation import Texts, written
from elrea.evaluation.judges import Judged, judge_of
from elrea.evaluation.scoring import Outcome
from elrea.method.ensemble.strategy import Strategy, Voting


def check(examples: Sequence[Example], by: str, strategies: Mapping[str, Strategy]) -> None:
    """Refuses what could not be judged, before anything is trained.

    Raises:
        ConfigError: A strategy votes on likelihoods, and there are examples without choices.
        DataError: An example names no judge that there is, or lacks what its judge needs.
    """
    free = next((e for e in examples if not e.choices), None) if by == "likelihood" else None
    for name, strategy in strategies.items():
        if free and isinstance(strategy, Voting):
            raise ConfigError(
                f"ensemble={name} votes on given choices, and {free.id} has none: say evaluation.by=generation, or "
                "leave this strategy out"
            )
    chosen = {i for strategy in strategies.values() for i in written(examples, by, strategy)}
    judges.check(examples[i] for i in sorted(chosen))


def judge_texts(
    examples: Sequence[Example],
    texts: Texts,
    outcomes: Mapping[str, Outcome],
    advance: Callable[[int], object] = lambda _n: None,
) -> dict[str, Outcome]:
    """Outcomes in which examples are judged by their texts; wrong are those whose prompt was too long for any.

    Args:
        examples: Of the test.
        texts: By mixture and example.
        outcomes: By mixture, what likelihood says, if that was asked.
        advance: Told how many texts are done.

    Returns:
        By mixture: those of `outcomes`, and those of `texts`.
    """
    n = len(examples)
    found = dict(outcomes)
    known: dict[tuple[int, str], Judged] = {}  # strategies often write the same
    for name, each in texts.items():
        outcome = found.setdefault(name, Outcome.blank(n))
        outcome.text, outcome.answer = [None] * n, [None] * n
        for i, drawn in each.items():
            example = examples[i]
            for text in drawn:
                if (i, text) not in known:
                    known[i, text] = judge_of(example)(text, example)
            judged = [known[i, text] for text in drawn]
            which = majority(judged)
            answer = judged[which].answer if drawn else None
            outcome.text[i], outcome.answer[i] = drawn[which] if drawn else None, answer
            outcome.correct[i] = bool(drawn) and judged[which].correct
            outcome.choice[i] = example.choices.index(answer) if answer in example.choices else None
            advance(len(drawn))
    return found


def majority(judged: Sequence[Judged]) -> int:
    """The text whose answer counts: the first with the most frequent one; of equals the one drawn first.

    Texts without an answer have no vote, unless there is no other.
    """
    answers = [each.answer for each in judged]
    votes = Counter(answer for answer in answers if answer is not None)
    return answers.index(votes.most_common(1)[0][0]) if votes else 0
