"""How an example becomes one text: the plain layout, and the tokenizer's own chat template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from elrea.data.examples import Example
from elrea.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "ELREA-RESPONSE"
"""A response that no template words itself, to see what a template puts around one."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn before the response; `routes` where its words are the asker's (not a shot's)."""

    role: str
    text: str
    routes: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text."""

    text: str
    separator: str
    """Stands between prompt and response: a space, or nothing where the prompt has its own."""
    spans: tuple[tuple[int, int], ...]
    """Characters [start, end) of the asker's words, in order."""


def turns(example: Example, shots: bool) -> list[Turn]:
    """An example's prompt turn by turn: system, shots, earlier turns, instruction.

    The header leads the first turn of a user, be it a shot or the instruction.
    """
    history = [Turn(role, text, role == "user") for role, text in example.history]
    system = list(takewhile(lambda turn: turn.role == "system", history))
    solved = [
        Turn(role, text)
        for pair in (example.shots if shots else ())
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    asked = [*solved, *history[len(system) :], Turn("user", example.instruction, True)]
    if example.header:
        first = next(index for index, turn in enumerate(asked) if turn.role == "user")
        old = asked[first]
        asked[first] = Turn("user", f"{example.header}\n\n{old.text}", old.routes)
    return system + asked


def separator(text: str) -> str:
    """What stands between a text and its answer: one space, unless the text ends its line."""
    return "" if text.endswith("\n") else " "


class PlainTemplate:
    """For models without a chat template: blocks with an empty line between them.

    A user's turn and the answer to it make one block, "{instruction} {response}".
    """

    closing = ""

    def render(self, example: Example, shots: bool) -> Rendered:
        """Lay a prompt out; the text ends without a trailing space."""
        text = ""
        spans = []
        previous = ""
        for turn in turns(example, shots):
            answers = turn.role == "assistant" and previous == "user"
            if text:
                text += separator(text) if answers else "\n\n"
            start = len(text)
            text += turn.text.rstrip(" ")
            if turn.routes:
                spans.append((start, len(text)))
            previous = turn.role
        return Rendered(text, separator(text), tuple(spans))


class ChatTemplate:
    """The chat template of a tokenizer; shots become earlier turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def render(self, example: Example, shots: bool) -> Rendered:
        """Lay a prompt out, up to where the assistant's words begin.

        Raises:
            DataError: the template refuses these turns, or changes the words of a user.
        """
        asked = turns(example, shots)
        text = self._prompt(asked, example.id)
        spans = []
        position = 0
        for turn in asked:
            words = turn.text.strip()  # many templates strip
            found = text.find(words, position)
            if found >= 0:
                position = found + len(words)
            if turn.routes:
                if found < 0:
                    raise DataError(f"{example.id}: the chat template changes the words of a turn")
                spans.append((found, position))
        opening = self._around[0]
        bare = opening.rstrip(" ")
        return Rendered(text + bare, opening[len(bare) :], tuple(spans))

    @property
    def closing(self) -> str:
        """What ends the assistant's turn, e.g. "<|im_end|>"."""
        return self._around[1]

    @cached_property
    def _around(self) -> tuple[str, str]:
        """What the template puts before (beyond the prompt) and after the assistant's words."""
        from jinja2 import TemplateError

        asked = [{"role": "user", "content": "?"}]
        answer = {"role": "assistant", "content": _MARK}
        try:
            prompt = self._apply(asked, open_turn=True)
            before, mark, after = self._apply([*asked, answer], open_turn=False).partition(_MARK)
        except TemplateError as error:
            raise DataError(
                f"the backbone's chat template fails ({error}); set backbone.use_chat_template=false"
            ) from error
        if not mark:
            return "", ""
        return before[len(prompt) :] if before.startswith(prompt) else "", after.strip()

    def _prompt(self, asked: list[Turn], name: str) -> str:
        from jinja2 import TemplateError

        messages = [{"role": turn.role, "content": turn.text} for turn in asked]
        try:
            try:
                return self._apply(messages, open_turn=True)
            except TemplateError:
                # Some templates (Gemma's) know no system role: its words go to the user.
                return self._apply(_fold_system(messages), open_turn=True)
        except TemplateError as error:
            raise DataError(
                f"{name}: the chat template refuses these turns ({error}); mend the example or set"
                " backbone.use_chat_template=false"
            ) from error

    def _apply(self, messages: list[dict[str, str]], open_turn: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=open_turn
            )
        except TemplateError:
            raise
        except Exception as error:  # a template adds a number to a text, say
            line = " ".join(str(error).split())[:200]
            raise TemplateError(f"{type(error).__name__}: {line}") from error
        return str(text)


def _fold_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [dict(message) for message in messages if message["role"] != "system"]
    rest[0]["content"] = "\n\n".join([*system, rest[0]["content"]])
    return rest
