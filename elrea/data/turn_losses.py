"""Finds the turns of a chat that carry loss of their own in the text that a chat template makes of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from elrea.data.user_words import unused
from elrea.errors import DataError

Spans = tuple[tuple[int, int], ...]
"""Character positions [start, end)."""
Messages = Sequence[Mapping[str, str]]


def places(
    text: str,
    messages: Messages,
    losses: Sequence[bool | None],
    apply: Callable[[Messages], str],
    closing: str,
    specials: Collection[str],
    name: str,
) -> tuple[Spans, Spans]:
    """The places in a prompt of the turns that carry loss, and of those that never do.

    A turn's place is what it would be as the response: its words as the template writes them, the spaces before them,
    and the end of turn that the template writes after them.

    Args:
        text: the prompt.
        messages: its turns.
        losses: of each turn, as `elrea.data.examples.Example.turn_loss`.
        apply: the template: messages -> the text of the prompt.
        closing: the end of the last turn of a chat. Where the template ends other turns by another special token, as
            gpt-oss's does, that is their end.
        specials: the tokenizer's special tokens.
        name: the example's id.

    Raises:
        DataError: the template does not write such a turn where it stands.
    """
    found: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    marks = any(loss is not None for loss in losses)
    whole = apply(messages) if marks else ""
    # Stands for the words of a turn, to find the text that the template puts before and after them.
    (mark,) = unused("".join([whole, *(m["content"] for m in messages)]), 1) if marks else ("",)
    for number, loss in enumerate(losses):
        if loss is None:
            continue
        marked = [*messages]
        marked[number] = {**messages[number], "content": mark}
        before, found_mark, after = apply(marked).partition(mark)
        end = len(whole) - len(after)
        known = (
            found_mark and whole.startswith(before) and whole.endswith(after) and len(before) <= end
        )
        end += _closing(whole[end:], closing, specials) if known else 0
        if not known or not text.startswith(whole[:end]):
            raise DataError(
                f"{name}: turn {number + 1} cannot be found in what the chat template makes of the chat; set"
                " data.turns=last (and take out its weight), or backbone.use_chat_template=false"
            )
        found[loss].append((len(before.rstrip(" ")), end))
    return tuple(found[True]), tuple(found[False])


def _closing(rest: str, closing: str, specials: Collection[str]) -> int:
    """The length of the end of turn at the beginning of the text behind a turn's words."""
    white = len(rest) - len(rest.lstrip())
    if not closing:
        return 0
    if rest[white:].startswith(closing):
        return white + len(closing)
    return max((len(token) for token in specials if token and rest.startswith(token)), default=0)


def flags(offsets: Sequence[tuple[int, int]], spans: Spans) -> tuple[bool, ...]:
    """For each token, whether any of its characters is in one of the spans.

    Args:
        offsets: character positions [start, end) of each token.
        spans: places in the same text.
    """
    return tuple(
        any(begin < last and first < end for first, last in spans) for begin, end in offsets
    )
