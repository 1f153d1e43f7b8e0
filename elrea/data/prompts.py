"""From examples to token ids: what is trained on, tested on, and routed by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from elrea.data.examples import Example
from elrea.data.templates import ChatTemplate, PlainTemplate, Rendered
from elrea.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids."""

    id: str
    """The example's id."""
    prompt: Ids
    """x_instr, beginning with BOS where the tokenizer has one; empty where it was too long."""
    response: Ids
    """x_resp, ending with EOS where the tokenizer has one; empty for routing."""
    loss_mask: tuple[bool, ...] | None = None
    """One flag per prompt token, in several turns alone: True on the users' words, which carry
    the loss that the features are gradients of. None: every prompt token does."""
    shots: int = 0
    """Solved examples in the prompt."""

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt) + len(self.response)


class Prompter:
    """Words examples for one tokenizer.

    A response is tokenised as what follows the prompt, so that the letter after "Answer:" is one
    token " A" where the tokenizer has it, and the prompt's ids never depend on the response.

    Args:
        tokenizer: any of transformers' tokenizers.
        max_length: of prompt and response together, in tokens.
        use_chat_template: None uses the tokenizer's chat template if it has one. A chat prompt
            is what the template makes of it: a template without BOS is left without.

    Raises:
        ConfigError: a chat template is asked for and the tokenizer has none, or `max_length` is
            not positive.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        use_chat_template: bool | None = None,
    ) -> None:
        if max_length < 1:
            raise ConfigError(f"max_length={max_length} must be at least 1 token")
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if use_chat_template and not has_template:
            raise ConfigError(
                "the tokenizer has no chat template; set use_chat_template to null or false"
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.chat = has_template if use_chat_template is None else use_chat_template
        self._template = ChatTemplate(tokenizer) if self.chat else PlainTemplate()
        # Thousands of questions end in the same line and offer the same letters.
        self._continue = lru_cache(maxsize=4096)(self._continuation)

    def encode(self, example: Example, *, shots: bool = True, end: bool = True) -> Encoded:
        """Encode one example, however long.

        Args:
            example: what to encode.
            shots: put its solved examples before the instruction.
            end: close the response: the template's end of turn, then EOS.

        Raises:
            DataError: the chat template refuses the example's turns.
        """
        rendered = self._template.render(example, shots)
        prompt, mask = self._prompt(rendered, masked=bool(example.history), name=example.id)
        response = self._response(rendered, example.response)
        if end:
            response += self._end()
        return Encoded(example.id, prompt, response, mask)

    def train(
        self, examples: Iterable[Example], kind: str = "training"
    ) -> tuple[list[Encoded], list[str]]:
        """Encode for training.

        Args:
            examples: prompts and responses.
            kind: what an error calls them.

        Returns:
            What fits into `max_length`, in order, and the ids of what was dropped as too long.

        Raises:
            DataError: nothing fits.
        """
        kept, dropped = [], []
        for example in examples:
            encoded = self.encode(example)
            if encoded.length <= self.max_length:
                kept.append(encoded)
            else:
                dropped.append(example.id)
        if dropped and not kept:
            raise DataError(
                f"all {len(dropped)} {kind} examples are longer than {self.max_length} tokens; "
                "raise backbone.max_length, or take a model with a longer context"
            )
        return kept, dropped

    def test(
        self, examples: Iterable[Example], room: int | None = None
    ) -> tuple[list[Encoded], list[str]]:
        """Encode for scoring; a prompt that does not fit loses shots, the last one first.

        Args:
            examples: what is scored.
            room: tokens to leave free behind a prompt; None leaves the longest choice's, or
                the response's where there are no choices.

        Returns:
            One `Encoded` per example, in order, and the ids of those that do not fit without
            any shot either: their prompt is empty.
        """
        encoded, too_long = [], []
        for example in examples:
            fitting = self._fit(example, room)
            if not fitting.prompt:
                too_long.append(example.id)
            encoded.append(fitting)
        return encoded, too_long

    def routing(self, examples: Iterable[Example]) -> list[Encoded]:
        """Encode for features and routing: prompts alone, without shots, header included.

        A prompt longer than `max_length` keeps its first tokens (and its mask, unless the users'
        words were all cut off). No response exists yet: it is empty.
        """
        encoded = []
        for example in examples:
            rendered = self._template.render(example, shots=False)
            prompt, mask = self._prompt(rendered, masked=bool(example.history), name=example.id)
            cut = (mask or ())[: self.max_length]
            kept = prompt[: self.max_length]
            encoded.append(Encoded(example.id, kept, (), cut if any(cut) else None))
        return encoded

    def choices(self, example: Example) -> list[Ids]:
        """Token ids of each choice as it continues the prompt, without EOS; none are empty."""
        rendered = self._template.render(example, shots=False)
        return [self._response(rendered, choice) for choice in example.choices]

    def following(self, example: Example, text: str) -> Ids:
        """Token ids of a text as it stands behind the prompt, its own leading spaces included; without EOS.

        What `choices` gives for "A" where the prompt's separator is a space, this gives for " A".
        In a chat the template's separator takes the place of the leading spaces.
        """
        rendered = self._template.render(example, shots=False)
        if self.chat:
            return self._response(rendered, text.lstrip(" "))
        return self._behind(rendered, text)

    def _fit(self, example: Example, room: int | None) -> Encoded:
        """Encode with as many shots as fit."""
        if room is None and example.choices:
            room = max(len(choice) for choice in self.choices(example))
        for shots in range(len(example.shots), -1, -1):
            encoded = self.encode(replace(example, shots=example.shots[:shots]))
            needed = len(encoded.response) if room is None else room
            if len(encoded.prompt) + needed <= self.max_length:
                return replace(encoded, shots=shots)
        return Encoded(example.id, (), encoded.response)

    def _prompt(
        self, rendered: Rendered, masked: bool, name: str
    ) -> tuple[Ids, tuple[bool, ...] | None]:
        """Tokenise a prompt; `masked` says which tokens are the users' words too."""
        bos = self.tokenizer.bos_token_id
        start: Ids = () if bos is None or self.chat else (bos,)
        if not masked:
            return start + self._ids(rendered.text), None
        if not self.tokenizer.is_fast:
            raise DataError(
                f"{name}: several turns need a tokenizer that knows its offsets (tokenizer.json);"
                f" {type(self.tokenizer).__name__} does not"
            )
        coded = self.tokenizer(
            rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        mask = tuple(
            any(begin < last and first < end for first, last in rendered.spans)
            for begin, end in coded["offset_mapping"]
        )
        return start + tuple(coded["input_ids"]), (False,) * len(start) + mask

    def _response(self, rendered: Rendered, text: str) -> Ids:
        return self._behind(rendered, rendered.separator + text)

    def _behind(self, rendered: Rendered, text: str) -> Ids:
        # The last line is context enough: what follows it does not depend on earlier lines.
        line = rendered.text[rendered.text.rfind("\n", 0, -1) + 1 :] or "\n"
        return self._continue(line, text)

    def _continuation(self, context: str, text: str) -> Ids:
        """Ids of `text` as it follows `context`.

        Some tokenizers merge across the seam (":" and " " become one token): then the context's
        ids are no prefix of the joint ids, and the text is tokenised on its own.
        """
        for before in (context, context[-1:]):
            alone = self._ids(before)
            joint = self._ids(before + text)
            if joint[: len(alone)] == alone and len(joint) > len(alone):
                return joint[len(alone) :]
        return self._ids(text)

    def _end(self) -> Ids:
        eos = self.tokenizer.eos_token_id
        closing = self._ids(self._template.closing) if self._template.closing else ()
        if eos is None or closing[-1:] == (eos,):
            return closing
        return (*closing, eos)

    def _ids(self, text: str) -> Ids:
        coded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(coded["input_ids"])
