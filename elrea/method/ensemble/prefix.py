"""Prompts that are read once: their keys and values serve all continuations.

A first pass computes the logits behind each prompt, and keeps its keys and values in transformers' cache. Each
continuation then needs a pass over its own tokens alone, with a copy of its prompt's part of the cache. Tokens that all
prompts begin with are read once a member in the same way.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from elrea.data.batches import by_tokens
from elrea.method.ensemble.shared_head import (
    Head,
    joined,
    keeps_all,
    layers_without_keys,
    size_of_head,
)
from elrea.models.loss import logits_at

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

    from elrea.data.prompts import Ids

TOKENS = {"cpu": 1024}
"""By device: most tokens of all rows together in one pass. A CPU is hardly faster with more."""
MORE_TOKENS = 8192
"""The same on other devices."""
HELD = {"cpu": 4096}
"""By device: most tokens of all rows together, those in the cache included, which bounds the memory of keys and values;
elsewhere as many as in a pass."""

log = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """A prompt with continuations.

    Attributes:
        ids: Its token ids.
        place: Number of the logit vector behind its last token.
        tails: Of each continuation with more than one token: number of the logit vector behind its first token, and
            its tokens but the last; the following vectors have the next numbers.
    """

    ids: Ids
    place: int
    tails: Sequence[tuple[int, Ids]]


Adapted = Callable[[list[int]], AbstractContextManager["PreTrainedModel"]]
"""Sorted numbers of rows -> the model, with the adapters of these rows."""


def read(
    model: PreTrainedModel,
    adapted: Adapted,
    rows: Sequence[Prompt],
    pad_id: int,
    member: Sequence[int] | None = None,
) -> Iterator[tuple[list[int], list[int], Tensor]]:
    """Logits behind prompts and behind the tokens of their continuations, in passes of bounded size.

    Args:
        model: A model for which `shares_prompts` holds.
        adapted: Adds the adapters of some rows.
        rows: Prompts; one that several members read has a row for each.
        pad_id: Token id of padding.
        member: Of each row, the member that reads it: rows with the same one read a common head once. None: the rows'
            adapters differ.

    Yields:
        Of each pass the numbers of rows [n] and of logit vectors [n], and these vectors [n, vocabulary].
    """
    most = TOKENS.get(model.device.type, MORE_TOKENS)
    held = HELD.get(model.device.type, most)
    head = None if member is None else _head(model, adapted, rows, member, most)
    size = head.size if head else 0
    fit = max(1, held // max(len(row.ids) for row in rows))
    for batch in by_tokens([len(row.ids) - size for row in rows], fit, most):
        batch.sort()
        part = [rows[number] for number in batch]
        lengths = torch.tensor([len(row.ids) for row in part])
        # Padding on the left, as in generation: a continuation then follows its prompt without a gap.
        longest = int(lengths.max())
        ids = torch.tensor([[pad_id] * (longest - len(row.ids)) + list(row.ids) for row in part])
        mask = torch.arange(longest) >= longest - lengths[:, None]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        kept = head.before(batch, longest - lengths) if head else _empty(model)
        last = torch.arange(1, len(part) + 1) * (longest - size) - 1
        with adapted(batch) as inner:
            logits = _pass(inner, ids[:, size:], mask, positions[:, size:], last, kept)
        yield batch, [row.place for row in part], logits
        tails = [(k, place, tail) for k, row in enumerate(part) for place, tail in row.tails]
        each = [len(tail) for *_, tail in tails]
        fitting = max(1, held // (longest + max(each, default=0)))
        passes = math.ceil(len(each) / fitting)
        for chunk in by_tokens(each, math.ceil(len(each) / max(1, passes)), most):
            chosen = [tails[number] for number in sorted(chunk)]
            owners = [k for k, *_ in chosen]
            with adapted([batch[k] for k in owners]) as inner:
                own = _copy(kept, len(part), owners, inner.device)
                following = [tail for *_, tail in chosen]
                logits = _follow(inner, following, mask[owners], lengths[owners], own, pad_id)
            of = [batch[k] for k, _, tail in chosen for _ in tail]
            yield of, [place + k for _, place, tail in chosen for k in range(len(tail))], logits


def _head(
    model: PreTrainedModel, adapted: Adapted, rows: Sequence[Prompt], member: Sequence[int], most: int
) -> Head | None:  # fmt: skip
    """What all rows begin with, read once a member; None if that saves little, or the cache forgets."""
    readers = list(dict.fromkeys(member))
    size = size_of_head([row.ids for row in rows], len(readers)) if keeps_all(model) else 0
    if not size:
        return None
    first = [member.index(each) for each in readers]
    ids = torch.tensor([rows[0].ids[:size]])
    positions, kept = torch.arange(size)[None], []
    together = max(1, most // size)
    for start in range(0, len(first), together):
        part, own = first[start : start + together], _empty(model)
        n = len(part)
        with adapted(part) as inner:
            mask = torch.ones(n, size, dtype=torch.bool)
            places = torch.zeros(1, dtype=torch.long)  # no logits are wanted
            _pass(inner, ids.expand(n, -1), mask, positions.expand(n, -1), places, own)
        kept.append(own)
    number = {each: row for row, each in enumerate(readers)}
    return Head(size, joined(kept), [number[each] for each in member])


def _follow(
    model: PreTrainedModel, tails: list[Ids], mask: Tensor, lengths: Tensor, kept: DynamicCache, pad_id: int
) -> Tensor:  # fmt: skip
    """Logits behind every token of continuations, one after the other, behind prompts of these masks and lengths."""
    width = max(map(len, tails))
    ids = torch.tensor([list(tail) + [pad_id] * (width - len(tail)) for tail in tails])
    # Padding on the right, where no token looks; it takes its last token's position, which the model surely has.
    steps = torch.arange(width)
    sizes = torch.tensor([len(tail) for tail in tails])
    positions = lengths[:, None] + steps.minimum(sizes[:, None] - 1)
    places = (steps < sizes[:, None]).flatten().nonzero()[:, 0]
    whole = torch.cat([mask, mask.new_ones(ids.shape)], dim=1)
    return _pass(model, ids, whole, positions, places, kept)


def _pass(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, places: Tensor, kept: DynamicCache
) -> Tensor:  # fmt: skip
    device = model.device
    given: dict[str, Any] = {"attention_mask": mask.long().to(device)}
    if "position_ids" in signature(model.forward).parameters:
        given["position_ids"] = positions.to(device)
    logits = logits_at(
        model, ids.to(device), places.to(device), past_key_values=kept, use_cache=True, **given
    )
    return logits.float()


def _empty(model: PreTrainedModel) -> DynamicCache:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _copy(
    kept: DynamicCache, count: int, rows: list[int], device: torch.device | None = None
) -> DynamicCache:
    """The keys and values of some of `count` rows; those of `kept` stay as they are: a layer grows by new tensors."""
    own = copy.copy(kept)
    own.layers = [copy.copy(layer) for layer in kept.layers]
    if rows != list(range(count)):
        own.batch_select_indices(torch.tensor(rows, device=device))
    return own


def shares_prompts(model: PreTrainedModel) -> bool:
    """Whether the model's keys and values can be copied and continued from; if not, the log says so once.

    False for a model with a state that each token changes (Mamba, RWKV, and mixtures with attention), for a cache of
    another kind than `DynamicCache`, and for one that counts positions otherwise if they are passed (RoBERTa): the
    first call compares a few tokens' logits.
    """
    if model not in _SHARES:
        _SHARES[model] = _continues(model) and _agrees(model)
        if not _SHARES[model]:
            log.warning(
                "%s: its keys and values cannot be reused, so a prompt is read once per choice", type(model).__name__
            )  # fmt: skip
    return _SHARES[model]


_SHARES: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def _continues(model: PreTrainedModel) -> bool:
    """Whether every layer's state is a list of keys and values, one per token."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    known = (DynamicLayer, DynamicSlidingWindowLayer, *layers_without_keys())
    generating: Any = model
    return (
        "past_key_values" in signature(model.forward).parameters
        and not generating._is_stateful
        and generating._supports_default_dynamic_cache()
        and all(type(layer) in known for layer in _empty(model).layers)
    )


@torch.inference_mode()
def _agrees(model: PreTrainedModel) -> bool:
    """Whether the logits behind two prompts of unlike length and two continuations are those of whole passes, up to
    rounding. The shorter prompt is padded: a model that counts positions itself counts the padding too."""
    rows: list[Prompt] = []
    wanted: list[Tensor] = []
    for size in (11, 12):  # so near that they go through the model together
        ids = tuple((size * place + place // 3) % 4 for place in range(size + size % 10))
        first = sum(len(each) for each in wanted)
        rows.append(Prompt(ids[:size], first, [(first + 1, ids[size:])]))
        places = torch.arange(size - 1, len(ids), device=model.device)
        wanted.append(logits_at(model, torch.tensor([ids], device=model.device), places).float())
    expected, gap = torch.cat(wanted), torch.tensor(0.0)
    for _, numbers, logits in read(model, lambda _: nullcontext(model), rows, 0):
        gap = torch.maximum(gap, (logits - expected[numbers]).abs().max().cpu())
    exact = all(weight.dtype == torch.float32 for weight in model.parameters())
    return bool(gap <= (1e-3 if exact else 0.1) * expected.abs().max())


def most_shared(model: PreTrainedModel) -> float:
    """Longest sequence whose first keys fit to its last tokens; infinite for most models.

    Beyond it, rotary embeddings of type `dynamic` and `longrope` turn all keys otherwise, those of the prompt too.
    """
    config = model.config.get_text_config(decoder=True)
    ropes = getattr(config, "rope_parameters", None) or {}
    each = [rope for rope in (ropes, *ropes.values()) if isinstance(rope, dict)]
    limits = [
        rope.get("original_max_position_embeddings") or config.max_position_embeddings
        for rope in each
        if rope.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits, default=math.inf)
