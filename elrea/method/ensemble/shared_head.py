"""The tokens that all prompts of a batch begin with, such as a system prompt or worked examples: read once a member."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

    from elrea.data.prompts import Ids

LEAST = 16
"""Fewest tokens of a head: a shorter one is not worth a pass of its own."""
WORTH = 0.1
"""Least share of all tokens that reading a head once has to save."""
ALIKE = 0.25
"""Prompts are batched together if neighbours in alphabetical order share this part of the shorter one."""


class Head(NamedTuple):
    """Keys and values of a head.

    Attributes:
        size: Its tokens, h.
        kept: Its keys and values, with a row per reader.
        reader: Of each prompt, the row of `kept`.
    """

    size: int
    kept: DynamicCache
    reader: Sequence[int]

    def before(self, rows: Sequence[int], padding: torch.Tensor) -> DynamicCache:
        """The first h columns of prompts that are padded on the left: padding, then as much of the head as fits.

        Args:
            rows: Numbers of prompts [n].
            padding: Tokens of padding before each [n].
        """
        own = copy.copy(self.kept)
        own.layers = [copy.copy(layer) for layer in self.kept.layers]
        of = torch.tensor([self.reader[row] for row in rows])[:, None]
        # What stands where there is padding does not matter: the mask hides it.
        column = (torch.arange(self.size) - padding[:, None]).clamp(min=0)
        layer: Any
        for layer in own.layers:
            if layer.is_initialized and layer.keys is not None:  # some layers share another's
                place = of.to(layer.keys.device), column.to(layer.keys.device)
                layer.keys = layer.keys.transpose(1, 2)[place].transpose(1, 2)
                layer.values = layer.values.transpose(1, 2)[place].transpose(1, 2)
        return own


def joined(parts: Sequence[DynamicCache]) -> DynamicCache:
    """The rows of several caches of the same model and length in one."""
    first = parts[0]
    layer: Any
    for number, layer in enumerate(first.layers):
        if len(parts) > 1 and layer.is_initialized and layer.keys is not None:
            each: list[Any] = [part.layers[number] for part in parts]
            layer.keys = torch.cat([one.keys for one in each])
            layer.values = torch.cat([one.values for one in each])
    return first


def size_of_head(prompts: Sequence[Ids], readers: int) -> int:
    """Tokens that all prompts begin with, each with at least one more; 0 if reading them once a reader saves little.

    Args:
        prompts: Token ids of the prompts of all readers.
        readers: How many members read them.
    """
    # The first and the last in alphabetical order differ the earliest.
    size = min(common(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
    saved = size * (len(prompts) - readers)
    return size if size >= LEAST and saved >= WORTH * sum(map(len, prompts)) else 0


def common(one: Ids, other: Ids) -> int:
    """Number of tokens that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def alike(prompts: Sequence[Ids], least: int) -> list[list[int]]:
    """Groups of prompts that begin alike, such as those with the same worked examples.

    Args:
        prompts: Token ids of n prompts.
        least: Prompts in a group; those of smaller ones form the last group.

    Returns:
        Groups of 0 … n-1.
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    number, numbers = 0, []
    for before, after in zip(order[:1] + order, order, strict=False):
        one, other = prompts[before], prompts[after]
        number += common(one, other) < max(LEAST, ALIKE * min(len(one), len(other)))
        numbers.append(number)
    runs = [
        [i for _, i in run]
        for _, run in groupby(zip(numbers, order, strict=True), lambda pair: pair[0])
    ]
    large = [sorted(run) for run in runs if len(run) >= least]
    rest = sorted(i for run in runs if len(run) < least for i in run)
    return [*large, rest] if rest else large


def keeps_all(model: PreTrainedModel) -> bool:
    """Whether the model's cache has the keys and values of every token, also behind a sliding window."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    known = (DynamicLayer, *layers_without_keys())
    return all(type(layer) in known for layer in DynamicCache(config=model.config).layers)


def layers_without_keys() -> tuple[type, ...]:
    """transformers' class of a cache's layer that uses another's keys; none in versions that leave such layers out."""
    from transformers import cache_utils

    found = getattr(cache_utils, "DummyLayer", None)
    return () if found is None else (found,)
