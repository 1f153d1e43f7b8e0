"""Words examples by a tokenizer's chat template: the prompt, the template's own text of the response, and its end.

A template words a chat twice: with its prompt for generation, and as a chat that has been answered. The second is what
a model is trained on. Before a plain answer it may have more than the first (Qwen3 writes an empty thought) or less
(DeepSeek-R1's prompt for generation opens a thought).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elrea.data.chat_renderer import ChatRenderer
from elrea.data.templates import Answered, Rendered, Turn, turns
from elrea.data.turn_losses import places
from elrea.data.user_words import user_words
from elrea.data.wording import Wording
from elrea.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elrea.data.examples import Example

_MARK = "ELREA-RESPONSE"
"""A placeholder for a response, to find the text that a template puts before and after it."""

THOUGHT = re.compile(r"[<\[][^<>\[\]\n]{0,20}(?:think|thought|reason|channel)", re.IGNORECASE)
"""What may begin or end a thought: "<think>", "[THINK]", "<|channel|>"."""

_TAG = re.compile(r"\s*([<\[][^<>\[\]\s]{1,30}[>\]])\s*")

LEFT_OUT = (
    "the chat template leaves out or changes a part of {n} of {all} {kind} responses, first {first}: each follows the "
    "prompt for generation as it is"
)
DIFFERENT = (
    "the chat template words the turns of {n} of {all} {kind} examples, first {first}, in another way once they are "
    "answered: they are worded as its prompt for generation"
)
OPENED = (
    "the chat template's prompt for generation ends with {cut!r}, which its text of an answered chat does not have: "
    "prompts end before it"
)
SHORTER = (
    "{n} of {all} {kind} responses, first {first}, begin otherwise than a plain answer does in the chat template: "
    "their prompts end where the two part"
)
SILENT = (
    "the chat template does not print an assistant's last turn: responses follow its prompt for generation, and end "
    "with the end of text"
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a template turns its prompt for generation into the text before a plain answer, for some roles in order."""

    cut: str
    """The end of the prompt for generation that the text of an answered chat does not have."""
    opening: str
    """What comes between the rest and the answer."""
    closing: str
    """What comes behind the answer, without white space at the end."""
    note: str = ""
    """`DIFFERENT` or `SILENT` if the text of an answered chat is of no use."""


class ChatTemplate:
    """The chat template of a tokenizer. Shots become earlier turns.

    Args:
        tokenizer: has a chat template.
        wording: the date, further variables, and whether responses may begin with a thought.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, wording: Wording | None = None) -> None:
        self._wording = wording or Wording()
        self._specials = tokenizer.all_special_tokens
        self.renderer = ChatRenderer(
            tokenizer, self._wording.template_date, self._wording.chat_template_kwargs
        )
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    @property
    def closing(self) -> str:
        """The end of the assistant's turn with the white space before it, e.g. "<|im_end|>"."""
        return self._shape(("user",)).closing

    def render(self, example: Example, shots: bool, words: bool = False) -> Rendered:
        """The prompt as text, up to the beginning of the assistant's words.

        Args:
            example: the example.
            shots: put its solved examples before the instruction.
            words: find the user's words in a chat without earlier turns too.

        Raises:
            DataError: the template raises an error for these turns, or changes the words of a user.
        """
        said = turns(example, shots)
        prompt = self._prompt(example, said)
        if not example.history and not words:
            return prompt

        def text_of(others: list[Turn]) -> str:
            return self._prompt(example, others).text

        spans = user_words(said, prompt.text, text_of, example.id)
        if not example.history:
            return replace(prompt, spans=spans)
        learned, unlearned = places(
            prompt.text, _messages(said), [turn.loss for turn in said],
            lambda messages: self.renderer(messages, open_turn=True), self.closing.strip(), self._specials, example.id,
        )  # fmt: skip
        return replace(prompt, spans=spans, learned=learned, unlearned=unlearned)

    def answered(self, example: Example, shots: bool) -> Answered:
        """The prompt and the response as the template words them together.

        Raises:
            DataError: as `render`.
        """
        prompt, said = self.render(example, shots), turns(example, shots)
        shape = self._shape_of(said)
        response = example.response
        if not response or shape.note:
            return Answered(prompt, prompt.separator + response, shape.closing, prompt.note)
        full = self._text([*_messages(said), _assistant(response)], False, example.id)
        start = prompt.text + prompt.separator
        if full.startswith(start):
            rest = full[len(start) :]
            for words in (response, response.strip()):  # many templates strip
                if rest.startswith(words):
                    closing = rest[len(words) :].rstrip()
                    return Answered(prompt, prompt.separator + words, closing, prompt.note)
        return self._reworded(example, prompt, full.rstrip(), said)

    def is_plain(self, example: Example) -> bool:
        """Whether the template words the response as it does any answer without a thought."""
        answered = self.answered(example, False)
        usual = answered.prompt.separator + example.response
        return answered.note not in (LEFT_OUT, SHORTER) and answered.words == usual

    def is_mended(self, roles: tuple[str, ...]) -> bool:
        """Whether prompts of these roles differ from the prompt for generation followed by what an answered question
        has more."""
        shape, simple = self._shape(roles), self._shape(("user",))
        same = (shape.opening, shape.closing) == (simple.opening, simple.closing)
        return bool(shape.cut) or not same

    def opened(self) -> str:
        """What the prompt for generation adds to a question and an answered chat does not have."""
        return self._shape(("user",)).cut

    def _reworded(
        self, example: Example, prompt: Rendered, full: str, said: list[Turn]
    ) -> Answered:
        """For a response that the template does not put behind the prompt as it is."""
        shape = self._shape_of(said)
        generation = self._text(_messages(said), True, example.id)
        start = prompt.text + prompt.separator
        closing = shape.closing if full.endswith(shape.closing) else ""
        body = full.removesuffix(closing)
        for base in (generation, _shared(start, body)):
            if body.startswith(base) and _has(body[len(base) :], example.response):
                return _split(prompt, base, body, closing)
        thinks = THOUGHT.match(example.response.lstrip()) is not None
        text = _continued(generation if thinks else start, example.response)
        split = _split(prompt, _shared(start, text), text, shape.closing)
        return replace(split, note=LEFT_OUT)

    def _prompt(self, example: Example, said: list[Turn]) -> Rendered:
        """The prompt without the positions of the user's words."""
        text, shape = self._text(_messages(said), True, example.id), self._shape_of(said)
        if self._wording.thoughts and not example.choices and (shape.cut or shape.opening.strip()):
            return Rendered(text, "" if shape.cut else shape.opening, (), note=shape.note)
        bare = shape.opening.rstrip(" ")
        note = shape.note or (OPENED if shape.cut else "")
        return Rendered(
            text.removesuffix(shape.cut) + bare, shape.opening[len(bare) :], (), note=note
        )

    def _shape_of(self, said: list[Turn]) -> _Shape:
        return self._shape(tuple(turn.role for turn in said))

    def _shape(self, roles: tuple[str, ...]) -> _Shape:
        if roles not in self._shapes:
            from jinja2 import TemplateError

            try:
                self._shapes[roles] = self._compared(roles)
            except TemplateError as error:
                raise DataError(
                    f"the backbone's chat template fails ({error}); set backbone.use_chat_template=false"
                ) from error
        return self._shapes[roles]

    def _compared(self, roles: tuple[str, ...]) -> _Shape:
        """Compares the two texts of a chat of these roles."""
        chat = [{"role": role, "content": "?"} for role in roles]
        prompt = self.renderer(chat, open_turn=True)
        full = self.renderer([*chat, _assistant(_MARK)], open_turn=False)
        before, mark, after = full.partition(_MARK)
        if not mark:
            return _Shape("", "", "", SILENT)
        if before.startswith(prompt):
            return _Shape("", before[len(prompt) :], after.rstrip())
        shared = _shared(before, prompt)
        if len(shared) >= len(self.renderer(chat, open_turn=False).rstrip()):
            return _Shape(prompt[len(shared) :], before[len(shared) :], after.rstrip())
        simple = self._shape(("user",)) if roles != ("user",) else _Shape("", "", after.rstrip())
        return _Shape("", simple.opening, simple.closing, DIFFERENT)

    def _text(self, messages: list[dict[str, str]], open_turn: bool, name: str) -> str:
        from jinja2 import TemplateError

        try:
            return self.renderer(messages, open_turn=open_turn)
        except TemplateError as error:
            raise DataError(
                f"{name}: the chat template refuses these turns ({error}); correct the example or set"
                " backbone.use_chat_template=false"
            ) from error


def _split(prompt: Rendered, base: str, text: str, closing: str) -> Answered:
    """A text as prompt and response: behind the usual prompt, or behind `base` where it has another beginning."""
    if text.startswith(prompt.text):
        return Answered(prompt, text[len(prompt.text) :], closing, prompt.note)
    bare = base.rstrip(" ")
    spans = tuple((a, min(b, len(bare))) for a, b in prompt.spans if a < len(bare))
    shorter = replace(prompt, text=bare, separator=base[len(bare) :], spans=spans)
    return Answered(shorter, text[len(bare) :], closing, SHORTER)


def _messages(said: list[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in said]


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _shared(one: str, other: str) -> str:
    """The beginning that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))]


def _has(text: str, words: str) -> bool:
    """Whether a text has some words, whatever the white space."""
    return "".join(words.split()) in "".join(text.split())


def _continued(prompt: str, response: str) -> str:
    """A response behind a prompt. If the prompt ends with the tag that opens the response, it is written once."""
    tag = _TAG.match(response)
    if tag and prompt.rstrip().endswith(tag[1]):
        return prompt + response[tag.end() :]
    return prompt + response
