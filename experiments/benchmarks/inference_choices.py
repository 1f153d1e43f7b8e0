"""The part of the benchmark of inference that scores choices of several tokens."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.measuring import median_range, ratio, rounds

BEHIND, CHOICES, CHOICE = 100, 4, 8
"""Tokens of a prompt, its choices, and the tokens of each."""


def measure(members: Any, kind: str, batch: int, count: int) -> dict[str, Any]:
    """The time of a row per choice over that of a prompt that is read once.

    Args:
        members: The `Members` of inference.py, with their joint model.
        kind: Name of their backbone.
        batch: Prompts in a batch.
        count: Rounds.

    Raises:
        SystemExit: The two disagree.
    """
    from elrea.method.ensemble.likelihood import one_row_each, read_once

    prompts, texts = members.prompts(batch, BEHIND), members.prompts(batch * CHOICES, CHOICE)
    each = [list(map(tuple, part.tolist())) for part in texts.split(CHOICES)]
    asked = list(zip(map(tuple, prompts.tolist()), each, strict=True))
    weights = torch.rand(batch, members.count, generator=torch.Generator().manual_seed(0))
    passed: list[int] = []
    embedding = members.joint.model.get_input_embeddings()
    counter = embedding.register_forward_hook(lambda _m, ids, _o: passed.append(ids[0].numel()))

    def scored(make: Callable[..., Any]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            passed.clear()
            found = make(asked)
            logs = found.mixed(found.logits(members.joint, 0), weights)
            return torch.tensor([found.sums(number, logs) for number in range(batch)])

        return run

    ways = {"rows": scored(one_row_each), "once": scored(read_once)}
    results, tokens = {}, {}
    for name, way in ways.items():
        results[name], tokens[name] = way(), sum(passed)
    counter.remove()
    differs = float((results["once"] / results["rows"] - 1).abs().max())
    if not differs < 1e-5:
        raise SystemExit(f"choices: log-likelihoods differ by {differs:.2g}: nothing is timed")
    seconds = rounds(ways, count)
    row = {
        "backbone": kind, "threads": torch.get_num_threads(),
        "members": members.count, "batch": batch, "tokens": BEHIND, "choices": CHOICES,
        "choice_tokens": CHOICE, "rows_over_once": ratio(seconds["rows"], seconds["once"]),
        "tokens_rows_over_once": round(tokens["rows"] / tokens["once"], 3), "differs": differs,
        "seconds_once": round(statistics.median(seconds["once"]), 3),
    }  # fmt: skip
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    return (
        f"{row['backbone']}, {row['members']} members, batch {row['batch']}: {CHOICES} choices of {CHOICE} tokens "
        f"behind {BEHIND}: a row each / prompt read once: {median_range(row['rows_over_once'])} "
        f"(tokens: {row['tokens_rows_over_once']:.2f})"
    )
