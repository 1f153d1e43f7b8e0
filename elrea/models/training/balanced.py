"""Draws of training examples in which every cluster is seen as often."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from elrea.models.seeds import seed_of


def balanced(clusters: Sequence[int], draws: int, seed: int) -> list[int]:
    """Indices of examples, of every cluster as many; no example is drawn twice more often than another of its cluster.

    A cluster's examples are gone through in a new random order each time. Which clusters get one draw more, where the
    number does not divide, is random too.

    Args:
        clusters: Of each example, its cluster.
        draws: Number of indices.
        seed: Of the draws.

    Returns:
        The indices [draws], cluster by cluster; the training shuffles them.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "balanced"))
    numbers = torch.tensor(list(clusters))
    found = numbers.unique()
    quotas = torch.full((len(found),), draws // len(found))
    quotas[torch.randperm(len(found), generator=generator)[: draws % len(found)]] += 1
    chosen: list[int] = []
    for cluster, quota in zip(found.tolist(), quotas.tolist(), strict=True):
        members = (numbers == cluster).nonzero()[:, 0]
        rounds = -(-quota // len(members))
        order = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
        chosen += torch.cat([*order, members[:0]])[:quota].tolist()
    return chosen
