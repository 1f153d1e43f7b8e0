"""A start for the tiny backbone that can already look things up.

Which letter stands before an option, and which option has a given text, are found by two known circuits: heads that
copy what stood one and two places before, and heads of a later layer that match such copies against what stands
elsewhere (induction). From random weights they take a small model tens of millions of tokens to find. Here a few heads
start as these circuits, everything else at random, and training goes on from there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

SHARED = 0.6
"""Length of the part that all embeddings share, beside an own part of length 1: heads look back by it."""
NEAR, MATCH = 10.0, 14.0
"""Attention logits: what a head that looks back gains per rotary pair at its distance; of an exact match."""


@torch.no_grad()
def install(model: LlamaForCausalLM, match_layers: tuple[int, ...], seed: int) -> None:
    """Overwrites the embeddings, two heads of the first layer and three heads of each of `match_layers`.

    Args:
        model: Llama with untouched rotary embeddings, at least 4 heads a layer and a head dimension of at most half
            the hidden size.
        match_layers: Indices of layers, 1 or more.
        seed: Of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    width, content = int(model.config.hidden_size or 0), _size(model) // 2
    base = torch.linalg.qr(torch.randn(width, width, generator=generator))[0].T
    # Directions: the shared one, those that identity is read in, and those where the first layer writes what stood
    # one and two places before.
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
        for head, (keys, found, length) in enumerate(
            (
                (own, two, 1.0),  # asked for a text: the letter two places before it
                (two, own, part),  # asked for a letter: the text two places behind it
                (own, one, 1.0),  # asked for a text: what stands right before it
            )
        ):
            key_length = scale * (part if keys is own else 1.0)
            _match(model, layer, head, one, scale, keys, key_length)
            _carry(model, layer, head, found, own, 1.5 / (scale * length))


def _size(model: LlamaForCausalLM) -> int:
    return int(model.config.head_dim or 0)


def _rows(model: LlamaForCausalLM, head: int) -> slice:
    return slice(head * _size(model), (head + 1) * _size(model))


def _look_back(
    model: LlamaForCausalLM, head: int, distance: int, shared: Tensor, length: float
) -> None:
    """Lets a head of the first layer attend to the token `distance` places before, by rotary phase alone."""
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
    """Lets a head attend to where `keys` hold what the query holds in `asked`.

    Only the slower half of the rotary dimensions is used: the others would turn content into position.
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
    """Lets a head copy what it finds in the directions `read` to the directions `write`."""
    attention, rows = model.model.layers[layer].self_attn, _rows(model, head)
    attention.v_proj.weight[rows] = 0
    attention.o_proj.weight[:, rows] = 0
    attention.v_proj.weight[rows.start : rows.start + len(read)] = read
    attention.o_proj.weight[:, rows.start : rows.start + len(write)] = gain * write.T
