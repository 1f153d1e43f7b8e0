"""Initialises a few attention heads of the tiny backbone as circuits that look things up.

Two known circuits find the letter before an option and the option with a given text: heads that copy the tokens one
and two places before, and heads of a later layer that match these copies with the current token (induction heads). From
random weights a small model needs tens of millions of tokens to learn them. Here a few heads start as these circuits;
all other weights are random, and training continues from there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

SHARED = 0.6
"""Length of the component that all embeddings share; their individual one has length 1. Heads look back by it."""
NEAR, MATCH = 10.0, 14.0
"""Attention logits: of a head that looks back, at its distance; and of an exact match."""


@torch.no_grad()
def install(model: LlamaForCausalLM, match_layers: tuple[int, ...], seed: int) -> None:
    """Overwrites the embeddings, two heads of the first layer and three heads of each of `match_layers`.

    Args:
        model: Llama with default rotary embeddings, at least 4 heads a layer and a head dimension of at most half
            the hidden size.
        match_layers: Indices of layers, 1 or more.
        seed: Of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    width, content = int(model.config.hidden_size or 0), _size(model) // 2
    base = torch.linalg.qr(torch.randn(width, width, generator=generator))[0].T
    # Directions: the shared one, those from which a token's identity is read, and those to which the first layer
    # writes the tokens one and two places before.
    shared = base[:1]
    own, one, two = (base[1 + i * content : 1 + (i + 1) * content] for i in range(3))
    embeddings = model.model.embed_tokens.weight
    identity = torch.randn(embeddings.shape, generator=generator)
    for space in (shared, one, two):
        identity -= identity @ space.T @ space
    identity /= identity.norm(dim=1, keepdim=True)
    embeddings.copy_(identity + SHARED * shared)

    scale = math.sqrt(width / (1 + SHARED**2))  # of the normalised embeddings
    part = math.sqrt(content / (width - 1 - 2 * content))  # length of an identity's readable part
    for head, space in enumerate((one, two)):
        _look_back(model, head, 1 + head, shared[0], SHARED * scale)
        _carry(model, 0, head, own, space, 1 / (scale * part))
    scale = math.sqrt(width / (3 + SHARED**2))  # after both have written vectors of length 1
    for layer in match_layers:
        for head, (keys, read, length) in enumerate(
            (
                (own, two, 1.0),  # given a text: the letter two places before it
                (two, own, part),  # given a letter: the text two places after it
                (own, one, 1.0),  # given a text: the token before it
            )
        ):
            key_length = scale * (part if keys is own else 1.0)
            _match(model, layer, head, one, scale, keys, key_length)
            _carry(model, layer, head, read, own, 1.5 / (scale * length))


def _size(model: LlamaForCausalLM) -> int:
    return int(model.config.head_dim or 0)


def _rows(model: LlamaForCausalLM, head: int) -> slice:
    return slice(head * _size(model), (head + 1) * _size(model))


def _look_back(
    model: LlamaForCausalLM, head: int, distance: int, shared: Tensor, length: float
) -> None:
    """Makes a head of the first layer attend to the token `distance` places before, by rotary phase alone."""
    attention, size = model.model.layers[0].self_attn, _size(model)
    frequencies = 10_000.0 ** (-torch.arange(size // 2) / (size // 2))
    query = torch.cat([torch.cos(-distance * frequencies), torch.sin(-distance * frequencies)])
    key = torch.cat([torch.ones(size // 2), torch.zeros(size // 2)])
    gain = math.sqrt(NEAR * math.sqrt(size)) / length
    attention.q_proj.weight[_rows(model, head)] = gain * torch.outer(query, shared)
    attention.k_proj.weight[_rows(model, head)] = gain * torch.outer(key, shared)


def _match(
    model: LlamaForCausalLM,
    layer: int,
    head: int,
    asked: Tensor,
    asked_length: float,
    keys: Tensor,
    key_length: float,
) -> None:
    """Makes a head attend where the directions `keys` hold what the query holds in the directions `asked`.

    Only the slower half of the rotary dimensions is used: in the others, position would change the content.
    """
    attention, size = model.model.layers[layer].self_attn, _size(model)
    quarter = size // 4
    slow = (
        torch.tensor([*range(quarter, 2 * quarter), *range(3 * quarter, 4 * quarter)]) + head * size
    )
    gain = math.sqrt(MATCH * math.sqrt(size) / (asked_length * key_length))
    for projection, directions in ((attention.q_proj, asked), (attention.k_proj, keys)):
        projection.weight[_rows(model, head)] = 0
        projection.weight[slow] = gain * directions


def _carry(
    model: LlamaForCausalLM, layer: int, head: int, read: Tensor, write: Tensor, gain: float
) -> None:
    """Makes a head copy the directions `read` to the directions `write`."""
    attention, rows = model.model.layers[layer].self_attn, _rows(model, head)
    attention.v_proj.weight[rows] = 0
    attention.o_proj.weight[:, rows] = 0
    attention.v_proj.weight[rows.start : rows.start + len(read)] = read
    attention.o_proj.weight[:, rows.start : rows.start + len(write)] = gain * write.T
