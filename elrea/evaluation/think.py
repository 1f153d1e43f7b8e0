"""Leaves a reasoning model's thinking out of its texts, so that its answer alone is judged.

A block is what is between two markers of one kind, as `<think>` and `</think>`. A prompt may have opened it already:
then the text begins inside, and has the closing marker alone. A block that is never closed ran out of tokens; such a
text has no answer.
"""

from __future__ import annotations

import re

_TAGS = "think|thinking|thoughts?|reasoning|seed:think"
_PAIRS = (
    (rf"<(?:{_TAGS})>", rf"</(?:{_TAGS})>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    ("◁think▷", "◁/think▷"),
)
"""Markers of the families of reasoning models: opening and closing."""
_ANALYSIS = re.compile(
    r"<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>|(?=<\|channel\|>final)|(?P<unclosed>\Z))",
    re.DOTALL,
)
"""A block of the harmony format, whose closing marker also ends other turns."""
_FINAL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>")
"""Announces the answer in the harmony format."""
_ROUND = re.compile(
    r"(?:<\|(?:START_RESPONSE|begin_of_solution)\|>|<answer>)?(?P<answer>.*?)"
    r"(?:<\|(?:END_RESPONSE|end_of_solution)\|>|</answer>)?",
    re.DOTALL | re.IGNORECASE,
)
"""Markers round the answer that follow a think block in some families; no part of the answer."""
_OPENING = "|".join(first for first, _ in _PAIRS)
_MARKS = re.compile(
    f"(?P<opening>{_OPENING})|{'|'.join(last for _, last in _PAIRS)}", re.IGNORECASE
)
_AT_END = re.compile(rf"(?:{_OPENING})\s*\Z", re.IGNORECASE)

UNCLOSED = "the think block does not end"
"""Why a text without an answer has none."""


def may_open(template: str) -> bool:
    """Whether a chat template has an opening marker, so that its prompts may end with one."""
    return re.search(_OPENING, template, re.IGNORECASE) is not None


def opens(prompt: str) -> bool:
    """Whether a prompt ends with an opening marker, so that its answer begins inside the block."""
    return _AT_END.search(prompt) is not None


def without_thinking(text: str, opened: bool = False) -> str | None:
    """A text without its think blocks and the markers round its answer, stripped; one without blocks as it is.

    Args:
        text: What a model wrote.
        opened: Whether its prompt ends inside a block (`opens`).

    Returns:
        None if a block does not end.
    """
    analyses = list(_ANALYSIS.finditer(text))
    if any(block["unclosed"] is not None for block in analyses):
        return None
    rest = _FINAL.sub("", _ANALYSIS.sub("", text)) if analyses else text
    kept, start, closing = "", 0, _closing("") if opened else None
    for mark in _MARKS.finditer(rest):
        if mark["opening"]:
            if closing is None:
                kept, closing = kept + rest[start : mark.start()], _closing(mark[0])
        elif closing is None or closing in ("", mark[0].lower()):
            # A closing marker alone: all before it was thinking.
            kept, start, closing = "" if not closing else kept, mark.end(), None
    if closing is not None:
        return None
    if rest == text and not start:
        return text
    whole = _ROUND.fullmatch((kept + rest[start:]).strip())
    assert whole is not None
    return whole["answer"].strip()


def _closing(opening: str) -> str:
    """The closing marker of an opening one, in lower case; of one in the prompt, which is not known, ""."""
    for before, after in (("<|start_", "<|end_"), ("<|begin_", "<|end_")):
        if opening.lower().startswith(before):
            return opening.lower().replace(before, after)
    return f"{opening[:1]}/{opening[1:].lower()}" if opening else ""
