"""A step that is cut into passes of similar lengths: the least padding, and the same gradient."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, parameters, set_state
from elrea.models.training import loop, passes
from elrea.models.training.batches import Step, items, steps
from elrea.models.training.module import AdapterModule
from elrea.models.training.schedule import Schedule
from elrea.models.training.settings import Training
from tests.models.builders import PAD, examples, gpt2, llama, random_state, train


def partitions(things: list[int]) -> Iterator[list[list[int]]]:
    """All ways to put the things into groups."""
    if not things:
        yield []
        return
    first, *rest = things
    for groups in partitions(rest):
        yield [[first], *groups]
        for place, group in enumerate(groups):
            yield [*groups[:place], [first, *group], *groups[place + 1 :]]


def cost(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(len(g) * max(lengths[i] for i in g) + passes.PASS for g in groups)


@pytest.mark.parametrize("most", [2, 4, 6])
def test_no_other_cut_costs_less(most: int) -> None:
    """Against all 203 ways to divide six examples."""
    draw = random.Random(most)
    for _ in range(20):
        lengths = [draw.choice([9, 40, 41, 120, 200, 400]) + draw.randrange(5) for _ in range(6)]
        got = passes.cut(lengths, most)
        assert sorted(i for part in got for i in part) == list(range(6))
        assert max(map(len, got)) <= most
        allowed = [p for p in partitions(list(range(6))) if max(map(len, p)) <= most]
        assert cost(got, lengths) == min(cost(p, lengths) for p in allowed)


def test_similar_lengths_stay_together_in_the_given_order() -> None:
    assert passes.cut([50, 50, 49, 50], 8) == [[2, 0, 1, 3]]


def test_the_gradient_and_the_loss_are_those_of_the_padded_step(monkeypatch) -> None:
    monkeypatch.setattr(passes, "PASS", 1)  # the lengths here are 5 to 12
    model = attach(llama(), Lora(r=2, dropout=0.0), 0)
    set_state(model, {name: 0.1 * tensor for name, tensor in random_state(model).items()})
    made, plan = items(examples(10), "response"), Schedule(10, 1, 10, 0.1, 0.0, 3, "base")
    module = AdapterModule(model, plan, made, Training(), PAD)

    def taken(by_length: bool) -> tuple[Step, float, dict[str, torch.Tensor]]:
        (step,) = steps(plan, made, pad_id=PAD, batch_size=10, by_length=by_length)
        model.zero_grad()
        loss = torch.stack([module.training_step(batch, 0) for batch in step.batches]).sum()
        loss.backward()
        gradients = {n: p.grad for n, p in parameters(model).items() if p.grad is not None}
        return step, loss.item(), gradients

    (whole, loss, wanted), (cut, cut_loss, got) = taken(False), taken(True)
    assert len(whole.batches) == 1 < len(cut.batches)
    assert sum(b.ids.numel() for b in cut.batches) < whole.batches[0].ids.numel()
    assert cut.names == whole.names and cut_loss == pytest.approx(loss, rel=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-5 * largest)


def test_a_training_that_is_cut_has_the_losses_of_one_that_is_not(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(passes, "PASS", 1)
    counted: list[int] = []
    step_of = AdapterModule.training_step

    def counting(*given: Any) -> torch.Tensor:
        counted.append(1)
        return step_of(*given)

    monkeypatch.setattr(AdapterModule, "training_step", counting)

    def losses(name: str) -> list[float]:
        train(tmp_path / name)
        return [row["loss"] for row in json.loads((tmp_path / name / "curve.json").read_text())]

    cut, passes_cut = losses("cut"), len(counted)
    monkeypatch.setattr(loop, "_by_length", lambda _module: False)
    assert cut == pytest.approx(losses("whole"), rel=1e-4)
    assert passes_cut > len(counted) - passes_cut == 9


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_dropout_draws(dropout: float) -> None:
    assert passes.draws(attach(llama(), Lora(r=2, dropout=dropout), 0)) == (dropout > 0)


def test_the_backbones_own_dropout_draws() -> None:
    model = llama()
    model.config.attention_dropout = 0.1  # no module has it: the attention calls the function
    assert passes.draws(model) and not passes.draws(llama())
    resid: Any = gpt2()
    resid.config.summary_first_dropout = 0.0
    assert not passes.draws(resid)
    resid.transformer.h[0].mlp.dropout.p = 0.1
    assert passes.draws(resid)


def test_dropouts_masks_stay_those_of_the_padded_step(tmp_path: Path, monkeypatch) -> None:
    """With dropout the results do not change: the passes are those of before."""
    monkeypatch.setattr(passes, "PASS", 1)
    monkeypatch.setattr(
        "elrea.models.training.batches.cut", lambda *_: pytest.fail("the step was cut")
    )
    train(tmp_path, lora=Lora(r=2, dropout=0.1), epochs=1)
