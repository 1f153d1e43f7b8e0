"""What a run's data and its chat template decide together: whether responses have thoughts, and what keys must say.

Stage keys have always had the settings of prompts. What was mended later stands in a key where it changes a prompt, so
that all other finished stages are still found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from elrea.data.chat_template import THOUGHT, ChatTemplate
from elrea.data.templates import turns

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.data.prompts import Prompter

_PLACE = re.compile("\ue000[0-9]+\ue001")


def has_thoughts(prompter: Prompter, examples: Iterable[Example]) -> bool:
    """Whether a response has a thought that the chat template words in another way than a plain answer."""
    template = prompter.template
    return isinstance(template, ChatTemplate) and any(
        THOUGHT.search(example.response) and not template.is_plain(example)
        for example in examples
        if not example.plain_text
    )


def wording_key(prompter: Prompter, examples: Sequence[Example]) -> dict[str, Any]:
    """What decides the token ids of these examples' prompts, beside the settings that keys have always had.

    Args:
        prompter: words them.
        examples: all examples of a run.

    Returns:
        Nothing for a prompt that begins with BOS if there is one, and a template that prints no date, writes the same
        before an answer as its prompt for generation and perhaps more, and repeats words as they are.
    """
    template, wording = prompter.template, prompter.wording
    key: dict[str, Any] = {}
    if not prompter.chat or any(example.plain_text for example in examples):
        bos = prompter.tokenizer.bos_token_id
        if prompter.start != (() if bos is None else (bos,)):
            key["start"] = list(prompter.start)
    if not isinstance(template, ChatTemplate):
        return key
    examples = [example for example in examples if not example.plain_text]
    if template.renderer.prints_the_date():
        key["date"] = wording.template_date
    if wording.chat_template_kwargs:
        key["variables"] = dict(wording.chat_template_kwargs)
    if wording.thoughts:
        key["thoughts"] = True
    if template.closing != template.closing.strip():
        key["closing"] = template.closing
    shapes = {tuple(turn.role for turn in turns(example, True)) for example in examples}
    if any(template.is_mended(roles) for roles in shapes):
        key["answered"] = True
    odd = (e for e in examples if THOUGHT.search(e.response) or e.response != e.response.strip())
    if any(not template.is_plain(example) for example in odd):
        key["responses"] = True
    if _mistaken(template, (example for example in examples if example.history)):
        key["words"] = True
    return key


def _mistaken(template: ChatTemplate, examples: Iterable[Example]) -> bool:
    """Whether, in any prompt, a search for each turn's words from left to right finds the template's own words."""
    own: dict[tuple[str, ...], list[str]] = {}
    for example in examples:
        said = turns(example, False)
        roles = tuple(turn.role for turn in said)
        if roles not in own:
            own[roles] = _own_words(template, roles)
        if len(own[roles]) != len(said):
            return True
        for before, turn in zip(own[roles], said, strict=True):
            words = turn.text.strip()
            if words and (before + words).find(words) < len(before):
                return True
    return False


def _own_words(template: ChatTemplate, roles: tuple[str, ...]) -> list[str]:
    """The template's own text before each turn of these roles."""
    from jinja2 import TemplateError

    chat = [{"role": role, "content": f"\ue000{n}\ue001"} for n, role in enumerate(roles)]
    try:
        return _PLACE.split(template.renderer(chat, open_turn=True))[:-1]
    except TemplateError:
        return []
