"""Text while it is written, for several prompts at once (transformers' own streamers refuse more than one row)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = "\ufffd"
"""What a tokenizer writes for bytes that are no character yet."""


class Stream(BaseStreamer):
    """Tells each prompt's text piece by piece, each as soon as no later token can change it.

    Args:
        tokenizer: Makes text of tokens.
        rows: The row of each prompt that is listened to.
        ends: Tokens that end an answer.
        stop: Texts before which an answer ends.
        tell: Called with the prompt's number and a piece of text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[int],
        ends: Sequence[int],
        stop: Sequence[str],
        tell: Callable[[int, str], object],
    ) -> None:
        self.tokenizer, self.rows, self.ends = tokenizer, list(rows), ends
        self.stop, self.tell = stop, tell
        self.ids: list[list[int]] = [[] for _ in self.rows]
        self.told = [0] * len(self.rows)
        self.over = [False] * len(self.rows)
        self.begun = False

    def put(self, value: Tensor) -> None:
        """Takes the prompts, once, and then a token per row."""
        if not self.begun:
            self.begun = True
            return
        for number, token in enumerate(value.flatten()[self.rows].tolist()):
            if self.over[number]:
                continue
            if token in self.ends:
                self._say(number, last=True)
            else:
                self.ids[number].append(token)
                self._say(number)

    def end(self) -> None:
        """The last token has come."""
        for number in range(len(self.rows)):
            if not self.over[number]:
                self._say(number, last=True)

    def _say(self, number: int, last: bool = False) -> None:
        text = self.tokenizer.decode(self.ids[number], skip_special_tokens=True)
        cut, found = stopped(str(text), self.stop)
        self.over[number] = last or found
        if not self.over[number]:
            cut = cut[: len(cut) - _held(cut, self.stop)].rstrip(UNKNOWN)
        if len(cut) > self.told[number]:
            self.tell(number, cut[self.told[number] :])
            self.told[number] = len(cut)


def stopped(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of the stop texts, and whether there was one."""
    places = [text.find(end) for end in stop if end in text]
    return (text[: min(places)], True) if places else (text, False)


def _held(text: str, stop: Sequence[str]) -> int:
    """How many last characters may be the beginning of a stop text."""
    return max((n for end in stop for n in range(1, len(end)) if text.endswith(end[:n])), default=0)
