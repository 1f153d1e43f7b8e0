"""Chat templates of all kinds, and an example to word with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase

from elrea.data.examples import Example

With = Callable[[str], PreTrainedTokenizerBase]
"""Makes a tokenizer with a chat template."""

START, END = "<|im_start|>", "<|im_end|>"
LOOP = "{% for m in messages %}{% set c = m['content'] %}"
TURN = "{{ '<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n' }}"
SPLIT = (
    "{% set r = '' %}{% if '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
ANSWER = "{% if m['role'] == 'assistant' %}" + SPLIT

KEEPS_LAST = (  # a thought before the last answer, be it empty; none in the history
    LOOP + ANSWER + "{{ '<|im_start|>assistant\n' }}{% if loop.last %}"
    "{{ '<think>\n' + r + '\n</think>\n\n' }}{% endif %}{{ c + '<|im_end|>\n' }}"
    "{% else %}" + TURN + "{% endif %}{% endfor %}" + OPEN
    + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)  # fmt: skip
OPENS = (  # the prompt for generation opens a thought, and answers lose theirs
    LOOP + ANSWER + "{% endif %}" + TURN + "{% endfor %}" + OPEN + "{{ '<think>\n' }}{% endif %}"
)
CLOSES = (  # the prompt for generation opens a thought, and answers begin with the end of one
    LOOP + "{% if m['role'] == 'assistant' %}" + SPLIT
    + "{{ '<|im_start|>assistant\n</think>' + c + '<|im_end|>\n' }}{% else %}" + TURN
    + "{% endif %}{% endfor %}" + OPEN + "{{ '<think>' }}{% endif %}"
)  # fmt: skip
ONE_LINE = (  # the thought is on the line of the role
    LOOP + ANSWER + "{{ '<|im_start|>assistant\n<think>' + r + '</think>\n' + c + '<|im_end|>\n' }}"
    "{% else %}" + TURN + "{% endif %}{% endfor %}" + OPEN + "{% endif %}"
)
CHANNELS = (  # an answer is in a channel, which the prompt for generation leaves to the model
    LOOP + "{% if m['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant<|channel|>final<|message|>' + c + '<|im_end|>' }}"
    "{% else %}" + TURN + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
PLAIN = LOOP + TURN + "{% endfor %}" + OPEN + "{% endif %}"
STRIPS = LOOP + TURN.replace("+ c +", "+ (c | trim) +") + "{% endfor %}" + OPEN + "{% endif %}"
SPACED = LOOP + (  # white space round the answer, and no prompt for generation
    "{% if m['role'] == 'assistant' %}{{ ' ' + c + ' </s>' }}"
    "{% else %}{{ '[INST] ' + c + ' [/INST]' }}{% endif %}{% endfor %}"
)
SYSTEM_LAST = (  # the system prompt is put into the last message, if that is the user's
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% if loop.last and s is defined %}{{ '[INST] ' + s + '\n\n' + m['content'] + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)
DATED = (
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ 'Today: ' + date_string + '\n' }}" + PLAIN
)
THINKING = {
    "keeps last": KEEPS_LAST, "opens": OPENS, "closes": CLOSES, "one line": ONE_LINE, "channels": CHANNELS,
}  # fmt: skip
THOUGHT = "<think>\nTwo and two.\n</think>\n\n4"


def asked(response: str = "4", name: str = "x", **more: Any) -> Example:
    return Example(name, "What is 2 + 2?", response, "s", **more)
