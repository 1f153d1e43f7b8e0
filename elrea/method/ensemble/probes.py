"""What transformers' `generate` gets right with a backbone, found out by a few tokens, once for each model.

Some backbones ignore the attention mask (RWKV, MiniMax), so that padding on the left changes what follows; some lose a
part of their state between two passes over a prompt (Jamba), or have no cache that a second pass could go on from; the
cache of one (RWKV) is good for one row alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONG, SHORT = 20, 9
"""Lengths of the rows, in tokens."""
CHUNK = 8
EXACT, ROUNDED = 1e-3, 0.05
"""Largest difference, as a share of the largest logit, that rounding explains in float32 and in half precision."""

log = logging.getLogger(__name__)

_FOUND: WeakKeyDictionary[PreTrainedModel, dict[str, bool]] = WeakKeyDictionary()


def pads(model: PreTrainedModel, pad_id: int) -> bool:
    """Whether a prompt that is padded on the left is continued as it is without padding; if not, the log says so once.

    Args:
        model: The backbone without adapters.
        pad_id: Token id of padding.
    """
    return _once(
        model, "pads",
        lambda: _logits(model, [_row(SHORT)], pad_id),
        lambda: _logits(model, [_row(LONG), _row(SHORT)], pad_id)[1:],
        "padding changes its texts, so only prompts of equal length are continued together",
    )  # fmt: skip


def caches(model: PreTrainedModel, pad_id: int) -> bool:
    """Whether several rows are continued with the model's cache as each alone, as they are not by transformers' RWKV;
    if not, the log says so once. Arguments as for `pads`."""
    rows = [_row(SHORT), _row(LONG)[:SHORT]]
    return pads(model, pad_id) or _once(
        model, "caches",
        lambda: torch.cat([_logits(model, [row], pad_id) for row in rows]),
        lambda: _logits(model, rows, pad_id),
        "its cache mixes up the rows of a batch, so each token takes a pass over the whole text",
    )  # fmt: skip


def chunks(model: PreTrainedModel) -> bool:
    """Whether prompts that are read in several passes are continued as those that are read in one."""
    rows = [_row(LONG), _row(SHORT if pads(model, 0) else LONG)]
    return _once(
        model, "chunks", lambda: _logits(model, rows, 0), lambda: _logits(model, rows, 0, CHUNK)
    )


def _once(
    model: PreTrainedModel, question: str, wanted: Callable[[], Tensor], got: Callable[[], Tensor], said: str = ""
) -> bool:  # fmt: skip
    """Whether what is got is what is wanted; False if the model raises an error instead, but for a lack of memory."""
    found = _FOUND.setdefault(model, {})
    if question not in found:
        right = wanted()
        try:
            found[question] = _close(model, got(), right)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # any class, from the model's own code
            found[question] = False
        if said and not found[question]:
            log.warning("%s: %s", type(model).__name__, said)
    return found[question]


@contextmanager
def settings_of(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Replaces the model's own generation settings: a repetition penalty would apply to every member's logits alone."""
    before = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = before


def _row(size: int) -> list[int]:
    return [(size * place + place // 3) % 4 for place in range(size)]


def _close(model: PreTrainedModel, got: Tensor, wanted: Tensor) -> bool:
    exact = all(weight.dtype == torch.float32 for weight in model.parameters())
    gap = (got - wanted).abs().max() / wanted.abs().max()
    return bool(gap <= (EXACT if exact else ROUNDED))


@torch.inference_mode()
def _logits(
    model: PreTrainedModel, rows: Sequence[list[int]], pad_id: int, chunk: int | None = None
) -> Tensor:
    """Logits of the next two tokens [rows, 2, vocabulary], the first of which is 1, with padding on the left."""
    longest = max(map(len, rows))
    ids = [[pad_id] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    settings = GenerationConfig(
        max_new_tokens=2, do_sample=False, pad_token_id=pad_id, prefill_chunk_size=chunk,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    generating: Any = model
    with settings_of(model, settings):
        out = generating.generate(
            torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=settings,
            prefix_allowed_tokens_fn=lambda _batch, _ids: [1],
        )
    return torch.stack(out.logits, dim=1).float()
