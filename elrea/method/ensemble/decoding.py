"""Text from an ensemble: one `generate` for all members, whose logits are mixed at every token (5.10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from elrea.data.prompts import Ids
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLD = 1e-30
"""Temperatures below it draw as it does, from the likeliest tokens alone: float32 cannot divide by much less."""


def generate(
    joint: JointModel | LayerwiseModel,
    prompts: Sequence[Ids],
    weights: Tensor,
    decoding: Decoding,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pad_id: int,
    tell: Callable[[int, str], object] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Ids]:
    """Continues prompts of any lengths together; each is sent through its own members only, all in one pass a token.

    Args:
        joint: All members; mixed inside the layers, they are one row per prompt.
        prompts: Token ids, at least one per prompt.
        weights: Of every member for each prompt [n, members]; a member of weight 0 is left out.
        decoding: How tokens are chosen.
        tokenizer: Knows the end of an answer, and makes text for `stop` and `tell`.
        pad_id: Fills up short prompts, on the left.
        tell: Called with a prompt's number and its next piece of text, as soon as that is certain.
        seeds: Of each prompt's own draws, in place of the one in `decoding`: what else is in the batch then changes
            nothing.

    Returns:
        The answers' token ids, without the token that ended them; a text of `stop` that did is still there.
    """
    if not prompts:
        return []
    device = next(joint.model.parameters()).device
    inside = isinstance(joint, LayerwiseModel)
    used = torch.ones(len(prompts), 1, dtype=torch.bool) if inside else weights != 0
    used[:, 0] |= ~used.any(dim=1)  # all weights 0: any member will do, every token is as likely
    prompt, member = (index.to(device) for index in used.nonzero(as_tuple=True))
    weights = weights.to(device)
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    first = torch.searchsorted(prompt, torch.arange(len(prompts), device=device))
    shares = torch.ones(len(prompts), device=device) if inside else weights[prompt, member]
    mixer = Mixer(prompt, shares, len(prompts), decoding, seeds)
    ends = ends_of(joint.model, tokenizer)
    settings = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens, do_sample=False, pad_token_id=pad_id, eos_token_id=ends or None,
        stop_strings=decoding.stop or None, prefill_chunk_size=joint.chunk(len(prompt), longest),
    )  # fmt: skip
    stream = Stream(tokenizer, first.tolist(), ends, decoding.stop, tell) if tell else None
    rows = joint.rows(weights if inside else member)
    with rows as model, _settings_of(model, settings), torch.inference_mode():
        written: Any = model
        out = written.generate(
            ids[prompt], attention_mask=mask[prompt], generation_config=settings,
            logits_processor=LogitsProcessorList([mixer]), tokenizer=tokenizer, streamer=stream,
        )  # fmt: skip
    return [_until(row, ends) for row in out[first, longest:].tolist()]


class Mixer(LogitsProcessor):
    """Chooses each prompt's next token from the weighed sum of its rows' logits, the same for all of them.

    Args:
        prompt: Whose each row is [rows].
        weight: Of each row's member [rows].
        count: Number of prompts.
        decoding: Greedy, or how to draw.
        seeds: Of each prompt's own draws; None: all follow `decoding.seed`.
    """

    def __init__(
        self,
        prompt: Tensor,
        weight: Tensor,
        count: int,
        decoding: Decoding,
        seeds: Sequence[int] | None = None,
    ) -> None:
        self.prompt, self.weight, self.count = prompt, weight.float(), count
        self.warpers = LogitsProcessorList()
        self.generators: list[torch.Generator] = []
        if decoding.temperature > 0:
            each = [decoding.seed] if seeds is None else seeds
            self.generators = [torch.Generator(prompt.device).manual_seed(s) for s in each]
            self.warpers.append(TemperatureLogitsWarper(max(float(decoding.temperature), COLD)))
            if decoding.top_k is not None:
                self.warpers.append(TopKLogitsWarper(decoding.top_k))
            if decoding.top_p < 1:
                self.warpers.append(TopPLogitsWarper(decoding.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [rows, vocabulary] in which nothing but the chosen token is possible."""
        mixed = scores.new_zeros(self.count, scores.shape[1], dtype=torch.float32)
        mixed.index_add_(0, self.prompt, scores.float() * self.weight[:, None])
        if not self.generators:
            chosen = mixed.argmax(dim=1, keepdim=True)
        else:
            warp: Any = self.warpers
            mixed -= mixed.amax(dim=1, keepdim=True)  # else what is divided by little overflows
            shares = warp(input_ids[:0], mixed).softmax(dim=1)
            parts = shares.tensor_split(len(self.generators))  # a row each, or all of them
            chosen = torch.cat(
                [
                    torch.multinomial(part, 1, generator=generator)
                    for part, generator in zip(parts, self.generators, strict=True)
                ]
            )
        only = torch.full_like(scores, -torch.inf)
        return only.scatter_(1, chosen[self.prompt], 0.0)


@contextmanager
def _settings_of(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Nothing of the model's own settings: a repetition penalty, say, would be laid on every member alone."""
    own = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own


def ends_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and the model's own (a chat model's end of turn)."""
    found: set[int] = set()
    for known in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        found |= {known} if isinstance(known, int) else set(known or ())
    return sorted(found)


def _until(ids: list[int], ends: Sequence[int]) -> Ids:
    """What stands before the first token that ends an answer."""
    stops = (place for place, token in enumerate(ids) if token in ends)
    return tuple(ids[: next(stops, len(ids))])


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
