"""The loss compared with its definition, computed one example and one token at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from elrea.data.prompts import Encoded
from elrea.errors import TrainingError
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, parameters
from elrea.models.loss import batch_loss, logits_at
from elrea.models.training.batches import Item, collate, items
from tests.models.builders import BUILDERS, PAD, examples

KINDS = sorted(BUILDERS)


def by_hand(model, example: Encoded, loss_on: str) -> Tensor:
    """Mean NLL over one example's tokens, from all logits, without padding."""
    tokens = [*example.prompt, *example.response]
    logits = model(input_ids=torch.tensor([tokens])).logits[0]
    first = len(example.prompt) if loss_on == "response" else 1
    terms = [-logits[p - 1].log_softmax(0)[tokens[p]] for p in range(first, len(tokens))]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("loss_on", ["response", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_mean_over_examples_of_the_mean_over_tokens(kind: str, loss_on: str) -> None:
    model, made = BUILDERS[kind](), examples(5)
    assert len({len(example.prompt) for example in made}) > 2  # so that there is padding
    with torch.no_grad():
        expected = torch.stack([by_hand(model, example, loss_on) for example in made]).mean()
        loss = batch_loss(model, collate(items(made, loss_on), PAD, 5))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_selected_logits_equal_the_full_ones(kind: str) -> None:
    """Gemma 2 caps its logits after the head, which must still happen."""
    model = BUILDERS[kind]()
    ids = torch.arange(12).reshape(2, 6)
    places = torch.tensor([1, 4, 7, 10])
    with torch.no_grad():
        full = model(input_ids=ids).logits.flatten(0, 1)[places]
        selected = logits_at(model, ids, places)
        assert selected.shape == full.shape
        torch.testing.assert_close(selected, full)
        again = model(input_ids=ids).logits
    assert again.shape[:2] == ids.shape  # the hook is removed


def test_without_a_head_module_the_logits_are_selected_afterwards(monkeypatch) -> None:
    model = BUILDERS["llama"]()
    ids, places = torch.arange(12).reshape(2, 6), torch.tensor([1, 4, 7, 10])
    with torch.no_grad():
        expected = logits_at(model, ids, places)
        monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
        torch.testing.assert_close(logits_at(model, ids, places), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_a_step_into_batches_changes_nothing(kind: str) -> None:
    """5 examples at once, and as 2 + 2 + 1: every example has the same weight."""
    model = attach(BUILDERS[kind](), Lora(r=2), 0)
    chosen = items(examples(5), "response")
    gradients = []
    backbone: Any = model.get_base_model()
    for size in (5, 2):
        model.zero_grad()
        for start in range(0, 5, size):
            batch = collate(chosen[start : start + size], PAD, 5)
            batch_loss(backbone, batch).backward()
        gradients.append([p.grad for p in parameters(model).values()])
    assert any(gradient is not None and gradient.any() for gradient in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_padding_never_matters() -> None:
    model, chosen = BUILDERS["llama"](), items(examples(5), "response")
    with torch.no_grad():
        losses = [batch_loss(model, collate(chosen, pad_id, 5)) for pad_id in (0, 17)]
    assert losses[0] == losses[1]


def test_targets_of_both_kinds() -> None:
    (item,) = items([Encoded("a", (2, 5, 6), (7, 1))], "response")
    assert item == Item("a", (2, 5, 6, 7, 1), 3)
    batch = collate([item, Item("b", (2, 8), 1)], PAD, 4)
    assert batch.ids.tolist() == [[2, 5, 6, 7, 1], [2, 8, 0, 0, 0]]
    assert batch.places.tolist() == [2, 3, 5]
    assert batch.targets.tolist() == [7, 1, 8]
    assert batch.weights.tolist() == [0.125, 0.125, 0.25]
    (item,) = items([Encoded("a", (2, 5, 6), (7, 1))], "all")
    assert item.first == 1
    (item,) = items([Encoded("a", (), (7, 1))], "response")
    assert item.first == 1  # nothing predicts the very first token


def test_examples_without_loss_are_named() -> None:
    with pytest.raises(TrainingError, match="example b has no response token"):
        items([Encoded("a", (2,), (3,)), Encoded("b", (2, 3), ())], "response")
    with pytest.raises(TrainingError, match="0 examples"):
        items([], "all")
