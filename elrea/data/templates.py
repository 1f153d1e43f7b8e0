"""Turns an example into the text of its prompt: its turns in order, and the plain layout without a chat template."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elrea.data.examples import Example


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn before the response. `routes`: its words are the user's own, not those of a shot, and carry the loss of
    the features. `loss`: as `Example.turn_loss` says; None for a shot."""

    role: str
    text: str
    routes: bool = False
    loss: bool | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text."""

    text: str
    separator: str
    """The text between prompt and response: a space, or nothing if the prompt ends with white space of its own."""
    spans: tuple[tuple[int, int], ...]
    """Character positions [start, end) of the user's words in `text`, in order; with a chat template, where they were
    asked for."""
    learned: tuple[tuple[int, int], ...] = ()
    """Those of the earlier turns that carry loss in training, each with its end of turn."""
    unlearned: tuple[tuple[int, int], ...] = ()
    """Those of the turns that never do."""
    note: str = ""
    """Where a chat template's texts of the same turns do not fit together, a line that says what was done."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt and its response as text."""

    prompt: Rendered
    words: str
    """The response with the separator before it; it follows `prompt.text`."""
    closing: str
    """What the template writes behind the response, without white space at its end."""
    note: str = ""
    """As `Rendered.note`."""


def turns(example: Example, shots: bool) -> list[Turn]:
    """The turns of an example's prompt: system, shots, earlier turns, instruction.

    The header is put before the first turn of a user, which is a shot, an earlier turn or the instruction.
    """
    losses = example.turn_loss or (None,) * len(example.history)
    history = [
        Turn(role, text, role == "user", loss)
        for (role, text), loss in zip(example.history, losses, strict=True)
    ]
    system = list(takewhile(lambda turn: turn.role == "system", history))
    solved = [
        Turn(role, text)
        for pair in (example.shots if shots else ())
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    others = [*solved, *history[len(system) :], Turn("user", example.instruction, True)]
    if example.header:
        first = next(index for index, turn in enumerate(others) if turn.role == "user")
        old = others[first]
        others[first] = Turn("user", f"{example.header}\n\n{old.text}", old.routes)
    return system + others


def separator(text: str) -> str:
    """The text between a prompt and its response: one space, or nothing after a line break."""
    return "" if text.endswith("\n") else " "


class PlainTemplate:
    """The layout for models without a chat template: blocks with an empty line between them.

    A user's turn and its answer are one block, "{instruction} {response}".
    """

    def render(self, example: Example, shots: bool, words: bool = False) -> Rendered:
        """The prompt as text, without a trailing space; the user's words are always found."""
        text = ""
        spans = []
        losses: dict[bool | None, list[tuple[int, int]]] = {None: [], True: [], False: []}
        previous = ""
        for turn in turns(example, shots):
            answers = turn.role == "assistant" and previous == "user"
            before = len(text)
            if text:
                text += separator(text) if answers else "\n\n"
            start = len(text)
            text += turn.text.rstrip(" ")
            if turn.routes:
                spans.append((start, len(text)))
            losses[turn.loss].append((before if answers else start, len(text)))
            previous = turn.role
        learned, unlearned = tuple(losses[True]), tuple(losses[False])
        return Rendered(text, separator(text), tuple(spans), learned, unlearned)

    def answered(self, example: Example, shots: bool) -> Answered:
        """The prompt and the response as text."""
        prompt = self.render(example, shots)
        return Answered(prompt, prompt.separator + example.response, "")
