"""Of a chat, the features see the words of the user alone: compared with templates written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from elrea.data.prompts import Prompter
from elrea.data.wording import Wording, wording_facts, wording_of
from elrea.errors import DataError
from tests.data.chat_templates import (
    END,
    KEEPS_LAST,
    PLAIN,
    SPACED,
    START,
    STRIPS,
    THOUGHT,
    With,
    asked,
)

Pieces = list[tuple[str, bool]]
"""A chat by hand: each piece of its text, and whether it is the user's."""


def chatml_by_hand(turns: list[tuple[str, str]], strips: bool = False) -> Pieces:
    pieces: Pieces = []
    for role, text in turns:
        words = text.strip() if strips else text
        pieces += [(f"{START}{role}\n", False), (words, role == "user"), (f"{END}\n", False)]
    return [*pieces, (f"{START}assistant\n", False)]


def spaced_by_hand(turns: list[tuple[str, str]]) -> Pieces:
    pieces: Pieces = []
    for role, text in turns:
        before, after = (" ", " </s>") if role == "assistant" else ("[INST] ", " [/INST]")
        pieces += [(before, False), (text, role == "user"), (after, False)]
    return pieces


BY_HAND: dict[str, Callable[[list[tuple[str, str]]], Pieces]] = {
    PLAIN: chatml_by_hand,
    STRIPS: lambda turns: chatml_by_hand(turns, strips=True),
    SPACED: spaced_by_hand,
}
WORDS = [
    "user", "assistant", "\n", "system", "user\nuser", "yes yes yes", START, "Think. Think.", " padded \n", "m",
    "INST", "Think about user.",
]  # fmt: skip


@pytest.mark.parametrize("template", BY_HAND)
@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("several", [True, False], ids=["several turns", "one turn"])
def test_the_mask_marks_the_users_words_alone(
    template: str, words: str, several: bool, templated: With
) -> None:
    tokenizer = templated(template)
    history = several * (
        ("system", "user assistant"), ("user", words), ("assistant", words), ("user", words), ("assistant", "yes")
    )  # fmt: skip
    example = replace(asked(header="Think about user."), instruction=words, history=history)
    (routed,) = Prompter(tokenizer, 1000).routing([example])
    assert routed.loss_mask is not None
    text, marked = "", ""
    for token, flag in zip(routed.prompt, routed.loss_mask, strict=True):
        piece = str(tokenizer.decode([token]))
        text += piece
        marked += ("x" if flag else "-") * len(piece)
    turns = [*history, ("user", words)]
    first = 1 if several else 0
    turns[first] = ("user", f"Think about user.\n\n{words}")
    pieces = BY_HAND[template](turns)
    assert text == "".join(piece for piece, _ in pieces)
    wanted = "".join(("x" if own else "-") * len(piece) for piece, own in pieces)
    shown = [(a, b) for a, b, char in zip(marked, wanted, text, strict=True) if not char.isspace()]
    assert [a for a, _ in shown] == [b for _, b in shown]


def test_one_turn_has_no_mask_where_the_template_carries_loss(templated: With) -> None:
    """As in ensembles of older versions, without a template, and with a tokenizer that does not tell positions."""
    tokenizer = templated(PLAIN)
    (now,) = Prompter(tokenizer, 1000).routing([asked()])
    assert now.loss_mask is not None and not all(now.loss_mask)
    for wording in (Wording(words_alone=False), Wording(use_chat_template=False)):
        assert Prompter(tokenizer, 1000, wording).routing([asked()])[0].loss_mask is None
    assert Prompter(tokenizer, 1000, Wording(words_alone=False)).routing([asked()])[0] == replace(
        now, loss_mask=None
    )
    assert wording_of(None, None).words_alone is False
    facts = wording_facts(Wording())
    assert wording_of(None, facts) == Wording()
    del facts["words_alone"]
    assert wording_of(None, facts) == Wording(words_alone=False)


def test_the_mask_of_a_thinking_template(templated: With) -> None:
    tokenizer = templated(KEEPS_LAST)
    example = asked(history=(("user", "think"), ("assistant", THOUGHT)))
    (routed,) = Prompter(tokenizer, 1000).routing([example])
    assert routed.loss_mask is not None
    ids = [i for i, flag in zip(routed.prompt, routed.loss_mask, strict=True) if flag]
    assert tokenizer.decode(list(ids)) == "thinkWhat is 2 + 2?"


def test_the_users_words_are_kept_where_the_template_looks_at_them(templated: With) -> None:
    """A template that treats a turn by its beginning; the words are then searched for."""
    template = PLAIN.replace(
        "{{ '<|im_start|>' + m", "{% if c.startswith('Hi') %}{% set c = c + '!' %}{% endif %}{{ '<|im_start|>' + m"
    )  # fmt: skip
    tokenizer = templated(template)
    prompter = Prompter(tokenizer, 1000)
    example = asked(history=(("user", "Hi"), ("assistant", "B")))
    (routed,) = prompter.routing([example])
    assert routed.loss_mask is not None
    ids = [i for i, flag in zip(routed.prompt, routed.loss_mask, strict=True) if flag]
    assert tokenizer.decode(list(ids)) == "HiWhat is 2 + 2?"
    tokenizer = templated(template.replace("c + '!'", "'Oh'"))
    with pytest.raises(DataError, match="x: the chat template changes the words of a turn"):
        Prompter(tokenizer, 1000).routing([example])
