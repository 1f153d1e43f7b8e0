"""A step's examples in several passes where that saves padding: the cheapest cut, and the same gradient."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from elrea.data.batches import cheapest_cut
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, parameters
from elrea.models.loss import batch_loss
from elrea.models.training.batches import Item, steps
from elrea.models.training.pass_cost import PER_LAYER, READING, pass_cost
from elrea.models.training.schedule import Schedule
from tests.models.builders import PAD, gpt2, llama


def partitions(indices: list[int]) -> Iterator[list[list[int]]]:
    """All ways to put indices into groups."""
    if not indices:
        yield []
        return
    first, rest = indices[0], indices[1:]
    for groups in partitions(rest):
        yield [[first], *groups]
        for number, group in enumerate(groups):
            yield [*groups[:number], [first, *group], *groups[number + 1 :]]


def price(passes: list[list[int]], lengths: list[int], cost: float) -> float:
    return sum(len(each) * max(lengths[i] for i in each) + cost for each in passes)


@pytest.mark.parametrize("number", range(30))
def test_no_partition_is_cheaper(number: int) -> None:
    draw = random.Random(number)
    lengths = [
        draw.choice([1, 5, 30, 31, 200]) + draw.randrange(9) for _ in range(draw.randint(1, 7))
    ]
    most, cost = draw.randint(1, 5), draw.choice([0.0, 3.5, 28.0, 500.0])
    got = cheapest_cut(lengths, most, cost)
    assert sorted(i for each in got for i in each) == list(range(len(lengths)))
    assert max(map(len, got)) <= most
    every = (p for p in partitions(list(range(len(lengths)))) if max(map(len, p)) <= most)
    assert price(got, lengths, cost) == min(price(p, lengths, cost) for p in every)


def test_passes_without_a_known_cost_are_as_before() -> None:
    assert cheapest_cut([9, 1, 8, 2, 7], 2, math.inf) == [[0, 1], [2, 3], [4]]


def test_the_gradient_is_that_of_one_pass() -> None:
    draw = random.Random(0)
    rows = [
        Item(f"{n}", tuple(draw.randrange(1, 40) for _ in range(n)), n - 3, (2,))
        for n in (40, 6, 7, 38, 12, 6)
    ]
    schedule = Schedule(len(rows), 1, 6, 1e-3, 0.0, 0, "base")
    found = []
    for cost in (math.inf, 4.0):
        model = attach(llama(), Lora(r=2, dropout=0.0), 0)
        for parameter in parameters(model).values():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
        (step,) = steps(schedule, rows, pad_id=PAD, batch_size=6, pass_cost=cost)
        backbone: Any = model.get_base_model()
        total = torch.stack([batch_loss(backbone, batch) for batch in step.batches]).sum()
        total.backward()
        gradient = torch.cat(
            [p.grad.flatten() for p in parameters(model).values() if p.grad is not None]
        )
        found.append((len(step.batches), total.item(), gradient))
    (whole, loss, gradient), (cut, loss_cut, gradient_cut) = found
    assert whole == 1 and cut == 3
    assert loss_cut == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(gradient_cut, gradient, rtol=0, atol=1e-6 * float(gradient.abs().max()))


def test_the_cost_follows_from_layers_and_weights() -> None:
    for build, layer in ((llama, 16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 24 + 2 * 16), (gpt2, None)):
        model = attach(build().requires_grad_(False), Lora(r=2, dropout=0.0), 0)
        found = pass_cost(model)
        if layer is not None:
            assert found == pytest.approx(PER_LAYER * 2 / (2 * layer + 16))
        assert math.isfinite(found)


def test_a_large_models_pass_still_has_to_read_its_weights() -> None:
    """Layers of 1.6 billion weights each: their calls alone would cost less than a token."""
    large = nn.Linear(40_000, 40_000, bias=False, device="meta").requires_grad_(False)
    backbone = SimpleNamespace(
        device=torch.device("cpu"), parameters=lambda: iter([large.weight]), modules=lambda: [],
        get_input_embeddings=lambda: None, get_output_embeddings=lambda: None,
        config=SimpleNamespace(
            get_text_config=lambda: SimpleNamespace(num_hidden_layers=1), to_dict=dict
        ),
    )  # fmt: skip
    model: Any = SimpleNamespace(get_base_model=lambda: backbone)
    assert PER_LAYER / large.weight.numel() < 1
    assert pass_cost(model) == READING
