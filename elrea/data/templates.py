"""Turns an example into the text of its prompt: in a plain layout, or by the tokenizer's chat template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from elrea.data.turn_losses import Messages, places
from elrea.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elrea.data.examples import Example

_MARK = "ELREA-RESPONSE"
"""A placeholder for a response, to find the text that a template puts before and after it."""


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
    """Character positions [start, end) of the user's words in `text`, in order."""
    learned: tuple[tuple[int, int], ...] = ()
    """Those of the earlier turns that carry loss in training, each with its end of turn."""
    unlearned: tuple[tuple[int, int], ...] = ()
    """Those of the turns that never do."""


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

    closing = ""

    def render(self, example: Example, shots: bool) -> Rendered:
        """The prompt as text, without a trailing space."""
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


class ChatTemplate:
    """The chat template of a tokenizer. Shots become earlier turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def render(self, example: Example, shots: bool) -> Rendered:
        """The prompt as text, up to the beginning of the assistant's words.

        Raises:
            DataError: the template raises an error for these turns, or changes the words of a user.
        """
        prompt_turns = turns(example, shots)
        text = self._prompt(prompt_turns, example.id)
        spans = []
        position = 0
        for turn in prompt_turns:
            words = turn.text.strip()  # many templates strip
            found = text.find(words, position)
            if found >= 0:
                position = found + len(words)
            if turn.routes:
                if found < 0:
                    raise DataError(
                        f"{example.id}: the chat template changes the words of a turn; set"
                        " backbone.use_chat_template=false"
                    )
                spans.append((found, position))
        opening = self._around[0]
        bare = opening.rstrip(" ")
        learned, unlearned = places(
            text, _messages(prompt_turns), [turn.loss for turn in prompt_turns], self._whole, self.closing,
            self._tokenizer.all_special_tokens, example.id,
        )  # fmt: skip
        return Rendered(text + bare, opening[len(bare) :], tuple(spans), learned, unlearned)

    @property
    def closing(self) -> str:
        """The end of the assistant's turn, e.g. "<|im_end|>"."""
        return self._around[1]

    @cached_property
    def _around(self) -> tuple[str, str]:
        """The text between the prompt and the assistant's words, and the text after them."""
        from jinja2 import TemplateError

        question = [{"role": "user", "content": "?"}]
        answer = {"role": "assistant", "content": _MARK}
        try:
            prompt = self._apply(question, open_turn=True)
            before, mark, after = self._apply([*question, answer], open_turn=False).partition(_MARK)
        except TemplateError as error:
            raise DataError(
                f"the backbone's chat template fails ({error}); set backbone.use_chat_template=false"
            ) from error
        if not mark:
            return "", ""
        return before[len(prompt) :] if before.startswith(prompt) else "", after.strip()

    def _prompt(self, prompt_turns: list[Turn], name: str) -> str:
        from jinja2 import TemplateError

        try:
            return self._whole(_messages(prompt_turns))
        except TemplateError as error:
            raise DataError(
                f"{name}: the chat template refuses these turns ({error}); correct the example or set"
                " backbone.use_chat_template=false"
            ) from error

    def _whole(self, messages: Messages) -> str:
        """The messages up to the next answer. Raises jinja2's TemplateError if the template refuses them."""
        from jinja2 import TemplateError

        try:
            return self._apply(messages, open_turn=True)
        except TemplateError:
            # Some templates (Gemma's) have no system role: put its words into the user's turn.
            return self._apply(_fold_system(messages), open_turn=True)

    def _apply(self, messages: Messages, open_turn: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=open_turn,
            )
        except TemplateError:
            raise
        except (
            Exception
        ) as error:  # any error in the template's own code, as adding a number to a text
            line = " ".join(str(error).split())[:200]
            raise TemplateError(f"{type(error).__name__}: {line}") from error
        return str(text)


def _messages(prompt_turns: list[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in prompt_turns]


def _fold_system(messages: Messages) -> list[dict[str, str]]:
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [dict(message) for message in messages if message["role"] != "system"]
    rest[0]["content"] = "\n\n".join([*system, rest[0]["content"]])
    return rest
