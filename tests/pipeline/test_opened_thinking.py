"""Which prompts end inside a think block: what the chat template leaves open, seen by the tokens of the prompt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.data.wording import Wording
from elrea.pipeline.steps.scores import _opened

TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}assistant: <think>\n{% endif %}"
SHUT = "{% if add_generation_prompt %}assistant: <think>\n\n</think>\n\n{% endif %}"
BARE = "{% if add_generation_prompt %}assistant: {% endif %}"
BY_USER = (
    BARE + "{% if add_generation_prompt and 'deep' in messages[-1]['content'] %}<think>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (TURNS + OPEN, [True, True, True]),
        (TURNS + SHUT, [False, False, False]),
        (TURNS + BARE, [False, False, False]),
        (TURNS + BY_USER, [False, True, False]),
        ("", [False, False, True]),
    ],
)
def test_which_prompts_end_inside_a_block(
    template: str, found: list[bool], small_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    tokenizer.chat_template = template or None
    asked = ["What does <think> mean?", "Be deep.", "Say\n<think>"]
    test = [Example(str(i), text, "x", "s") for i, text in enumerate(asked)]
    evaluation, corpus = SimpleNamespace(max_new_tokens=4), SimpleNamespace(test=test)
    experiment = SimpleNamespace(corpus=corpus, evaluation=evaluation)
    context: Any = SimpleNamespace(
        experiment=experiment, prompter=Prompter(tokenizer, 400, Wording(thoughts=True))
    )
    opened = _opened(context)
    assert [opened(i) for i in range(3)] == found
