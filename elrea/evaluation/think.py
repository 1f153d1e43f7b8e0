"""Leaves a reasoning model's thinking out of its texts, so that its answer alone is judged.

A block is what is between two markers of one kind, as `<think>` and `</think>`. A prompt may have opened it already:
then the text begins inside, and has the closing marker alone. A block that is never closed ran out of tokens; such a
text has no answer. Texts also speak of markers: one in quotes is a word, and so is one in the midst of a line that no
block of the text ends with.
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
_ROUND = (
    (r"<\|START_RESPONSE\|>", r"<\|END_RESPONSE\|>"),
    (r"<\|begin_of_solution\|>", r"<\|end_of_solution\|>"),
    ("<answer>", "</answer>"),
)
"""Pairs of markers that some families write round the answer; no part of it."""
_PAIR = re.compile(
    r"\s*(?:"
    + "|".join(rf"{first}((?:(?!{first}|{last}).)*){last}" for first, last in _ROUND)
    + r")\s*",
    re.DOTALL | re.IGNORECASE,
)
"""A text that is one such pair with what is between them."""
_OPENING = "|".join(first for first, _ in _PAIRS)
_MARKS = re.compile(
    f"(?P<opening>{_OPENING})|{'|'.join(last for _, last in _PAIRS)}", re.IGNORECASE
)
_AT_END = re.compile(rf"(?:{_OPENING})\s*\Z", re.IGNORECASE)
_QUOTES = ("``", '""', "''", "“”", "‘’", "«»", "„“")

UNCLOSED = "the think block does not end"
"""Why a text without an answer has none."""


def may_open(template: str) -> bool:
    """Whether a chat template has an opening marker, so that its prompts may end with one."""
    return re.search(_OPENING, template, re.IGNORECASE) is not None


def opens(prompt: str) -> bool:
    """Whether a prompt ends with an opening marker, so that its answer begins inside the block."""
    return _AT_END.search(prompt) is not None


def without_thinking(text: str, opened: bool = False) -> str | None:
    """A text without its think blocks and the pair of markers round its answer, stripped; one without them as it is.

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
    kept, start, closing, ended = "", 0, _closing("") if opened else None, set[str]()
    for mark in _MARKS.finditer(rest):
        if closing is None and _quoted(mark):
            continue
        if mark["opening"]:
            if closing is None and _begins(mark, kept + rest[start : mark.start()], ended):
                kept, closing = kept + rest[start : mark.start()], _closing(mark[0])
        elif closing is None or closing in ("", mark[0].lower()):
            # A closing marker alone: all before it was thinking.
            kept, start, closing = "" if not closing else kept, mark.end(), None
            ended.add(mark[0].lower())
    if closing is not None:
        return None
    whole = kept + rest[start:]
    if pair := _PAIR.fullmatch(whole):
        return next(words for words in pair.groups() if words is not None).strip()
    return text if rest == text and not start else whole.strip()


def _quoted(mark: re.Match[str]) -> bool:
    """Whether a marker stands in quotes of its own."""
    before, after = mark.string[: mark.start()][-1:], mark.string[mark.end() :][:1]
    return f"{before}{after}" in _QUOTES


def _begins(mark: re.Match[str], before: str, ended: set[str]) -> bool:
    """Whether an opening marker opens a block.

    Args:
        mark: The marker.
        before: What is kept of the text before it.
        ended: The closing markers of the blocks before it.
    """
    closing = _closing(mark[0])
    return (
        not before.rpartition("\n")[2].strip()
        or closing in ended
        or closing in mark.string[mark.end() :].lower()
    )


def _closing(opening: str) -> str:
    """The closing marker of an opening one, in lower case; of one in the prompt, which is not known, ""."""
    for before, after in (("<|start_", "<|end_"), ("<|begin_", "<|end_")):
        if opening.lower().startswith(before):
            return opening.lower().replace(before, after)
    return f"{opening[:1]}/{opening[1:].lower()}" if opening else ""
