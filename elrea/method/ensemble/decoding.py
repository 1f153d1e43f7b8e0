"""Text generation with an ensemble: one `generate` for all members, whose logits are mixed at every token (5.10).

`generate` sends every prompt through its members, one row each. `Mixer` chooses the next token of each prompt from the
weighted sum of its rows' logits; `Stream` reports the text as it grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.prefix import most_shared
from elrea.method.ensemble.probes import caches, pads, settings_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from elrea.data.prompts import Ids
    from elrea.method.ensemble.decoding_settings import Decoding
    from elrea.method.ensemble.joint import JointModel

COLDEST = 1e-30
"""Lower temperatures are replaced by it: both draw from the likeliest tokens, and float32 cannot divide by less."""

REPLACEMENT = "\ufffd"
"""A tokenizer's output for bytes that are not a whole character yet."""


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
    """Continues prompts of any lengths together, each by its own members, in one pass per token for all of them.

    With a backbone whose texts padding would change, prompts of equal length only are continued together.

    Args:
        joint: All members. A `LayerwiseModel` mixes them inside its layers, with one row per prompt.
        prompts: Token ids, at least one per prompt.
        weights: Weights of all members for each prompt [n, members]; a member of weight 0 is left out.
        decoding: How tokens are chosen.
        tokenizer: Gives the end-of-text token, and decodes tokens for `stop` and `tell`.
        pad_id: Token id of padding, on the left of shorter prompts.
        tell: Called with a prompt's number and its next piece of text, as soon as no later token can change it.
        seeds: One seed per prompt instead of the one in `decoding`: a prompt's draws then do not depend on its batch.

    Returns:
        Token ids of the answers, without the token that ended them; a stop text at the end is still included.
    """
    answers: list[Ids] = [()] * len(prompts)
    for numbers in _batches(joint.model, prompts, decoding, pad_id):
        found = _together(
            joint, [prompts[n] for n in numbers], weights[numbers], decoding, tokenizer, pad_id,
            _renumbered(tell, numbers) if tell else None,
            None if seeds is None else [seeds[n] for n in numbers],
        )  # fmt: skip
        for number, answer in zip(numbers, found, strict=True):
            answers[number] = answer
    return answers


def _batches(
    model: PreTrainedModel, prompts: Sequence[Ids], decoding: Decoding, pad_id: int
) -> list[list[int]]:
    """Numbers of the prompts that are continued together: all, or those of equal length if padding would change them,
    as it also does where the longest prompt's text goes beyond a limit that the others' positions depend on."""
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(number)
    if len(by_length) < 2:
        return list(by_length.values())
    reach = max(by_length) + decoding.max_new_tokens
    if reach <= most_shared(model) and pads(model, pad_id):
        return [list(range(len(prompts)))]
    return list(by_length.values())


def _renumbered(
    tell: Callable[[int, str], object], numbers: Sequence[int]
) -> Callable[[int, str], object]:
    """The same for a part of the prompts, which has numbers of its own."""
    return lambda number, text: tell(numbers[number], text)


def _together(
    joint: JointModel | LayerwiseModel, prompts: Sequence[Ids], weights: Tensor, decoding: Decoding,
    tokenizer: PreTrainedTokenizerBase, pad_id: int, tell: Callable[[int, str], object] | None,
    seeds: Sequence[int] | None,
) -> list[Ids]:  # fmt: skip
    """As `generate`, in one batch."""
    device = next(joint.model.parameters()).device
    layerwise = isinstance(joint, LayerwiseModel)
    used = torch.ones(len(prompts), 1, dtype=torch.bool) if layerwise else weights != 0
    used[:, 0] |= ~used.any(dim=1)  # all weights 0: with any member, every token is equally likely
    prompt, member = (index.to(device) for index in used.nonzero(as_tuple=True))
    weights = weights.to(device)
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    first = torch.searchsorted(prompt, torch.arange(len(prompts), device=device))
    row_weights = torch.ones(len(prompts), device=device) if layerwise else weights[prompt, member]
    mixer = Mixer(prompt, row_weights, len(prompts), decoding, seeds)
    ends = ends_of(joint.model, tokenizer, decoding.ends)
    cached = len(prompt) == 1 or caches(joint.model, pad_id)
    settings = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens, do_sample=False, pad_token_id=pad_id, eos_token_id=ends or None,
        use_cache=cached, prefill_chunk_size=joint.chunk(len(prompt), longest) if cached else None,
    )  # fmt: skip
    criteria = [StopTexts(tokenizer, decoding.stop, longest)] if decoding.stop else []
    stream = Stream(tokenizer, first.tolist(), ends, decoding.stop, tell) if tell else None
    rows = joint.rows(weights if layerwise else member)
    with rows as model, settings_of(model, settings), torch.inference_mode():
        generating: Any = model
        out = generating.generate(
            ids[prompt], attention_mask=mask[prompt], generation_config=settings,
            logits_processor=LogitsProcessorList([mixer]), stopping_criteria=StoppingCriteriaList(criteria),
            streamer=stream,
        )  # fmt: skip
    return [_until(row, ends) for row in out[first, longest:].tolist()]


class Mixer(LogitsProcessor):
    """Chooses each prompt's next token from the weighted sum of its rows' logits (5.10), the same for all its rows.

    Args:
        prompt: Number of each row's prompt [rows].
        weight: Weight of each row's member [rows].
        count: Number of prompts.
        decoding: How tokens are chosen.
        seeds: One seed per prompt; None: all draws follow `decoding.seed`.
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
        self.turns = _turns(prompt)
        self.warpers = LogitsProcessorList()
        self.generators: list[torch.Generator] = []
        if decoding.temperature > 0:
            each = [decoding.seed] if seeds is None else seeds
            self.generators = [torch.Generator(prompt.device).manual_seed(s) for s in each]
            temperature = max(float(decoding.temperature), COLDEST)
            self.warpers.append(TemperatureLogitsWarper(temperature))
            if decoding.top_k is not None:
                self.warpers.append(TopKLogitsWarper(decoding.top_k))
            if decoding.top_p < 1:
                self.warpers.append(TopPLogitsWarper(decoding.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [rows, vocabulary] that allow the chosen token only."""
        mixed = scores.new_zeros(self.count, scores.shape[1], dtype=torch.float32)
        weighed = scores.float() * self.weight[:, None]
        for rows in self.turns:
            mixed.index_add_(0, self.prompt[rows], weighed[rows])
        chosen = self._draw(input_ids, mixed) if self.generators else mixed.argmax(1, keepdim=True)
        only = torch.full_like(scores, -torch.inf)
        return only.scatter_(1, chosen[self.prompt], 0.0)

    def _draw(self, input_ids: Tensor, mixed: Tensor) -> Tensor:
        """A token for each prompt [count, 1], drawn from the mixed logits [count, vocabulary]."""
        warp: Any = self.warpers
        mixed -= mixed.amax(dim=1, keepdim=True)  # division by a small temperature would overflow
        probabilities = warp(input_ids[:0], mixed).softmax(dim=1)
        # One row for each generator, or all rows for the only one.
        parts = probabilities.tensor_split(len(self.generators))
        drawn = [
            torch.multinomial(part, 1, generator=generator)
            for part, generator in zip(parts, self.generators, strict=True)
        ]
        return torch.cat(drawn)


def _turns(prompt: Tensor) -> list[slice | Tensor]:
    """Rows that are added to their prompts' sums together: on a CPU all; on a GPU, whose order of additions is not
    fixed, one of each prompt at a time, so that a text does not differ from call to call."""
    if prompt.device.type == "cpu":
        return [slice(None)]
    turns: dict[int, list[int]] = {}
    seen: Counter[int] = Counter()
    for row, number in enumerate(prompt.tolist()):
        turns.setdefault(seen[number], []).append(row)
        seen[number] += 1
    return [torch.tensor(rows, device=prompt.device) for rows in turns.values()]


def ends_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, others: Sequence[int] = ()
) -> list[int]:
    """Tokens that end an answer: the tokenizer's end of text, the model's own (a chat model's end of turn), others."""
    ends = set(others)
    for known in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        ends |= {known} if isinstance(known, int) else set(known or ())
    return sorted(ends)


def _until(ids: list[int], ends: Sequence[int]) -> Ids:
    """The ids before the first token that ends an answer."""
    stops = (place for place, token in enumerate(ids) if token in ends)
    return tuple(ids[: next(stops, len(ids))])


class StopTexts(StoppingCriteria):
    """Ends a row once its answer has a stop text; transformers' own criterion reads the prompt's end too.

    Args:
        tokenizer: Decodes tokens.
        stop: Stop texts, at least one.
        start: Number of tokens before the answers, with padding.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], start: int) -> None:
        self.tokenizer, self.stop, self.start = tokenizer, stop, start
        self.ends_with = StopStringCriteria(tokenizer, list(stop))

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row is finished [rows]."""
        answers: Any = input_ids[:, self.start :]
        finished = self.ends_with(answers, scores)
        # Some tokenizers leave out the space before the first word, so that a stop text may be in the tokens alone.
        for row in finished.nonzero().flatten().tolist():
            finished[row] = stopped(str(self.tokenizer.decode(answers[row].tolist())), self.stop)[1]
        return finished


class Stream(BaseStreamer):
    """Reports each prompt's text piece by piece, each piece as soon as no later token can change it.

    Args:
        tokenizer: Decodes tokens.
        rows: For each prompt, the row to read its tokens from.
        ends: Tokens that end an answer.
        stop: Stop texts.
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
        self.reported = [0] * len(self.rows)  # characters of each text
        self.finished = [False] * len(self.rows)
        self.prompts_seen = False

    def put(self, value: Tensor) -> None:
        """Called by `generate` with the prompts first, and then with one token per row."""
        if not self.prompts_seen:
            self.prompts_seen = True
            return
        for number, token in enumerate(value.flatten()[self.rows].tolist()):
            if self.finished[number]:
                continue
            if token in self.ends:
                self._report(number, last=True)
            else:
                self.ids[number].append(token)
                self._report(number)

    def end(self) -> None:
        """Called by `generate` after the last token."""
        for number in range(len(self.rows)):
            if not self.finished[number]:
                self._report(number, last=True)

    def _report(self, number: int, last: bool = False) -> None:
        decoded = self.tokenizer.decode(self.ids[number], skip_special_tokens=True)
        text, ended = stopped(str(decoded), self.stop)
        self.finished[number] = last or ended
        if not self.finished[number]:
            text = text[: len(text) - _unsure(text, self.stop)].rstrip(REPLACEMENT)
        if len(text) > self.reported[number]:
            self.tell(number, text[self.reported[number] :])
            self.reported[number] = len(text)


def stopped(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop text, and whether there was one."""
    places = [text.find(end) for end in stop if end in text]
    return (text[: min(places)], True) if places else (text, False)


def _unsure(text: str, stop: Sequence[str]) -> int:
    """Number of characters at the end of the text that may be the beginning of a stop text."""
    return max((n for end in stop for n in range(1, len(end)) if text.endswith(end[:n])), default=0)
