"""Turns examples into token ids: for training, for scoring, and for features and routing."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from elrea.data.chat_template import ChatTemplate
from elrea.data.templates import PlainTemplate, Rendered
from elrea.data.turn_losses import flags
from elrea.data.wording import Wording
from elrea.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elrea.data.examples import Example

Ids = tuple[int, ...]
Masks = tuple[tuple[bool, ...] | None, tuple[bool, ...] | None, tuple[bool, ...] | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids."""

    id: str
    """The example's id."""
    prompt: Ids
    """x_instr, beginning with BOS if the tokenizer has one; empty if it is too long."""
    response: Ids
    """x_resp, ending with EOS if the tokenizer has one; empty for routing."""
    loss_mask: tuple[bool, ...] | None = None
    """One flag per prompt token: True on the user's words, whose loss gives the gradient features, in a chat with
    earlier turns and, with a chat template, in every prompt for routing. None: all prompt tokens count."""
    shots: int = 0
    """Number of solved examples in the prompt."""
    prompt_loss: tuple[bool, ...] | None = None
    """One flag per prompt token: True where the training loss counts it beside the response, as on the earlier answers
    of a chat with data.turns=all, and on plain text. None: the response alone."""
    no_loss: tuple[bool, ...] | None = None
    """One flag per prompt token: True where the training loss never counts it, as on an answer of weight 0. None:
    there is no such token."""

    @property
    def length(self) -> int:
        """Number of tokens of prompt and response."""
        return len(self.prompt) + len(self.response)


class Prompter:
    """Makes prompts and token ids for one tokenizer.

    A response is tokenised as the continuation of its prompt. So the letter after "Answer:" is one token " A" if the
    tokenizer has that token, and the ids of the prompt never depend on the response.

    Args:
        tokenizer: any tokenizer of transformers.
        max_length: maximum length of prompt and response together, in tokens.
        wording: the chat template's settings, and whether plain prompts begin with BOS; None for the usual ones.

    Raises:
        ConfigError: the tokenizer has no chat template although `use_chat_template` is true, or `max_length` is not
            positive.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        wording: Wording | None = None,
    ) -> None:
        if max_length < 1:
            raise ConfigError(f"max_length={max_length} must be at least 1 token")
        wording = wording or Wording()
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if wording.use_chat_template and not has_template:
            raise ConfigError(
                "the tokenizer has no chat template; set use_chat_template to null or false"
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.wording = wording
        self.chat = has_template if wording.use_chat_template is None else wording.use_chat_template
        self.template = ChatTemplate(tokenizer, wording) if self.chat else PlainTemplate()
        # Many questions end with the same line and have the same choices.
        self._continue = lru_cache(maxsize=4096)(self._continuation)

    @property
    def masks_template(self) -> bool:
        """Whether the template's tokens carry no loss of the features in a chat without earlier turns either."""
        return self.chat and self.wording.words_alone and bool(self.tokenizer.is_fast)

    @cached_property
    def start(self) -> Ids:
        """The ids that a plain prompt begins with: BOS, what the tokenizer's own encoding puts there, or nothing."""
        bos = self.tokenizer.bos_token_id
        if self.wording.add_bos is None:
            return own_start(self.tokenizer)
        return (bos,) if self.wording.add_bos and bos is not None else ()

    @cached_property
    def stop(self) -> tuple[str, ...]:
        """Texts that end a generated response: the end of the template's turn, if the tokenizer has no token for it.

        It is learned as text then, and `generate` does not end at it.
        """
        ids = self._closing
        eos = self.tokenizer.eos_token_id
        ids = ids[: ids.index(eos)] if eos in ids else ids
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
        return (text,) if text else ()

    @cached_property
    def ends(self) -> Ids:
        """Tokens other than EOS that end a generated response: the special tokens of the end of the template's turn.

        `stop` has none of them, since special tokens are not in a text.
        """

        def shown(token: int, **how: bool) -> str:
            return str(self.tokenizer.decode([token], **how))

        eos = self.tokenizer.eos_token_id
        ids = self._closing
        ids = ids[: ids.index(eos)] if eos in ids else ids
        return tuple(i for i in ids if shown(i) and not shown(i, skip_special_tokens=True))

    def encode(self, example: Example, *, end: bool = True) -> Encoded:
        """Encode one example, however long.

        Args:
            example: the example.
            end: add the end of the response: the template's end of turn, then EOS.

        Raises:
            DataError: the chat template raises an error for the example's turns.
        """
        return self._encoded(example, end)[0]

    def train(
        self, examples: Iterable[Example], kind: str = "training"
    ) -> tuple[list[Encoded], list[str]]:
        """Encode examples for training.

        Args:
            examples: the training examples.
            kind: adjective for the error, "training".

        Returns:
            The encoded examples that fit into `max_length`, in order, and the ids of those that are too long.

        Raises:
            DataError: all examples are too long.
        """
        kept, dropped = [], []
        notes: dict[str, list[str]] = defaultdict(list)
        for example in examples:
            encoded, note = self._encoded(example)
            if note:
                notes[note].append(example.id)
            if encoded.length <= self.max_length:
                kept.append(encoded)
            else:
                dropped.append(example.id)
        if dropped and not kept:
            raise DataError(
                f"all {len(dropped)} {kind} examples are longer than {self.max_length} tokens; "
                "raise backbone.max_length, or take a model with a longer context"
            )
        self._say(notes, len(kept) + len(dropped), kind)
        return kept, dropped

    def test(
        self, examples: Iterable[Example], room: int | None = None
    ) -> tuple[list[Encoded], list[str]]:
        """Encode examples for scoring. A prompt that is too long loses shots, the last one first.

        Args:
            examples: the test examples.
            room: number of tokens to leave free after a prompt; None leaves room for the longest choice, or for the
                response if there are no choices.

        Returns:
            One `Encoded` per example, in order, and the ids of the examples that do not fit even without shots; their
            prompt is empty. Of a plain text the prompt is the first token, BOS if the tokenizer has one, and the
            response all others, whose loss is the text's.
        """
        encoded, too_long = [], []
        for example in examples:
            fitting = self._fit(example, room)
            if not fitting.prompt:
                too_long.append(example.id)
            encoded.append(fitting)
        return encoded, too_long

    def routing(self, examples: Iterable[Example]) -> list[Encoded]:
        """Encode prompts for features and routing: with header, without shots and without a response.

        A prompt longer than `max_length` keeps its first tokens. Its loss mask becomes None if none of the users' words
        are left.

        Raises:
            DataError: the chat template changes a user's words, or the tokenizer cannot tell where they are.
        """
        encoded = []
        for example in examples:
            if example.plain_text:
                prompt, words = self.encode(example, end=False).prompt, None
            else:
                masked = bool(example.history) or self.masks_template
                rendered = self.template.render(example, shots=False, words=masked)
                prompt, (words, *_) = self._prompt(rendered, masked, example.id)
            cut = (words or ())[: self.max_length]
            kept = prompt[: self.max_length]
            encoded.append(Encoded(example.id, kept, (), cut if any(cut) else None))
        return encoded

    def choices(self, example: Example) -> list[Ids]:
        """Token ids of each choice as the continuation of the prompt, without EOS. No choice is empty."""
        rendered = self.template.render(example, shots=False)
        return [self._response(rendered, choice) for choice in example.choices]

    def following(self, example: Example, text: str) -> Ids:
        """Token ids of a text as the continuation of the prompt, with its own leading spaces and without EOS.

        `following(" A")` gives the ids that `choices` gives for "A" if the separator after the prompt is a space. In a
        chat the leading spaces are replaced by the template's separator.
        """
        rendered = self.template.render(example, shots=False)
        if self.chat:
            return self._response(rendered, text.lstrip(" "))
        return self._after(rendered, text)

    def _encoded(self, example: Example, end: bool = True) -> tuple[Encoded, str]:
        """As `encode`, and a line about what the chat template made of it, or nothing."""
        if example.plain_text:
            return self._plain_text(example.id, example.instruction, end), ""
        answered = self.template.answered(example, True)
        prompt, (words, learned, unlearned) = self._prompt(
            answered.prompt, masked=bool(example.history), name=example.id
        )
        response = self._after(answered.prompt, answered.words)
        if end:
            response += self._end(self._ids(answered.closing) if answered.closing else ())
        encoded = Encoded(
            example.id, prompt, response, words, prompt_loss=learned, no_loss=unlearned
        )
        return encoded, answered.note

    def _say(self, notes: Mapping[str, Sequence[str]], count: int, kind: str) -> None:
        """Log, for each thing that the chat template makes of some examples, one line."""
        cut = self.template.opened() if isinstance(self.template, ChatTemplate) else ""
        for note, ids in notes.items():
            log.warning(note.format(n=len(ids), all=count, first=ids[0], kind=kind, cut=cut))

    def _fit(self, example: Example, room: int | None) -> Encoded:
        """Encode with as many shots as fit; with an empty prompt if it does not fit without shots either."""
        if example.plain_text:
            text = self.encode(example)
            ids = text.prompt + text.response
            fits = len(ids) <= self.max_length
            return Encoded(example.id, ids[:1] if fits else (), ids[1:])
        if room is not None and not example.choices:
            # A text is going to be written: where its prompt ends may not depend on the reference.
            example = replace(example, response="")
        if room is None and example.choices:
            room = max(len(choice) for choice in self.choices(example))
        for shots in range(len(example.shots), -1, -1):
            encoded = self.encode(replace(example, shots=example.shots[:shots]))
            needed = len(encoded.response) if room is None else room
            if len(encoded.prompt) + needed <= self.max_length:
                return replace(encoded, shots=shots)
        return Encoded(example.id, (), encoded.response)

    def _prompt(self, rendered: Rendered, masked: bool, name: str) -> tuple[Ids, Masks]:
        """Token ids of a prompt, and its masks: the user's words (if `masked`), and the turns with and without loss."""
        start: Ids = () if self.chat else self.start
        spans = (rendered.spans if masked else (), rendered.learned, rendered.unlearned)
        if not masked:
            return start + self._ids(rendered.text), (None, None, None)
        if not self.tokenizer.is_fast:
            raise DataError(
                f"{name}: a chat with several turns needs a fast tokenizer (tokenizer.json), which gives character"
                f" offsets; {type(self.tokenizer).__name__} does not"
            )
        coded = self.tokenizer(
            rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        words, learned, unlearned = (
            (False,) * len(start) + flags(coded["offset_mapping"], places) for places in spans
        )
        return start + tuple(coded["input_ids"]), (
            words, learned if rendered.learned else None, unlearned if rendered.unlearned else None,
        )  # fmt: skip

    def _plain_text(self, name: str, text: str, end: bool) -> Encoded:
        """A plain text as a prompt, beginning as any plain prompt, and EOS as the response.

        A text that says BOS or EOS itself gets no second one.
        """
        eos, ids = self.tokenizer.eos_token_id, self._ids(text)
        if ids[: len(self.start)] != self.start:
            ids = self.start + ids
        closing: Ids = () if eos is None or not end or ids[-1:] == (eos,) else (eos,)
        return Encoded(name, ids, closing, prompt_loss=(True,) * len(ids))

    def _response(self, rendered: Rendered, text: str) -> Ids:
        return self._after(rendered, rendered.separator + text)

    def _after(self, rendered: Rendered, text: str) -> Ids:
        # The last line is enough context: the tokens after it do not depend on earlier lines.
        line = rendered.text[rendered.text.rfind("\n", 0, -1) + 1 :] or "\n"
        return self._continue(line, text)

    def _continuation(self, context: str, text: str) -> Ids:
        """Ids of `text` as the continuation of `context`.

        Some tokenizers merge the end of the context with the beginning of the text (":" and " " become one token). Then
        the context's ids are not a prefix of the joint ids, and the text is tokenised alone.
        """
        for before in (context, context[-1:]):
            alone = self._ids(before)
            joint = self._ids(before + text)
            if joint[: len(alone)] == alone and len(joint) > len(alone):
                return joint[len(alone) :]
        return self._ids(text)

    @cached_property
    def _closing(self) -> Ids:
        """Token ids of the end of the template's turn."""
        closing = self.template.closing if isinstance(self.template, ChatTemplate) else ""
        return self._ids(closing) if closing else ()

    def _end(self, closing: Ids) -> Ids:
        eos = self.tokenizer.eos_token_id
        if eos is None or closing[-1:] == (eos,):
            return closing
        return (*closing, eos)

    def _ids(self, text: str) -> Ids:
        coded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(coded["input_ids"])


def own_start(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """The special tokens that a tokenizer's own encoding of a text begins with, as lm-eval encodes prompts too."""
    text = "a"
    bare = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    whole = list(tokenizer(text, verbose=False)["input_ids"])
    for first in range(len(whole) - len(bare) + 1):
        if bare and whole[first : first + len(bare)] == bare:
            return tuple(whole[:first])
    return ()
