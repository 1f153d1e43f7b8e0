"""What all prompts begin with is read once a member, and the likelihoods are those of whole rows through PEFT."""

from __future__ import annotations

import random
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from transformers import cache_utils

from elrea.method.ensemble import prefix
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.likelihood import Asked, batches, log_likelihoods
from elrea.method.ensemble.shared_head import LEAST, alike, keeps_all, size_of_head
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from tests.method.ensemble.test_prefix import (
    KINDS,
    WITHOUT,
    adapters,
    asked,
    by_hand,
    counted,
    model_of,
)
from tests.models.builders import PAD

HEAD = tuple(random.Random(5).randrange(3, 40) for _ in range(18))
FORGETS = ("gemma2", "gemma3", "mistral", "phi3", *WITHOUT)
"""With a sliding window, a rotary scale that changes behind 30 tokens, or no keys and values to continue from."""


def with_head() -> list[Asked]:
    """Questions of unlike length behind one head: choices of several tokens, and letters."""
    texts = [(HEAD + prompt, choices) for prompt, choices in asked() if len(prompt) > 11]
    letters = [(HEAD + prompt[:n], [(4,), (7,), (9,)]) for n, (prompt, _) in enumerate(asked(3), 1)]
    return texts + letters


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_are_those_of_whole_rows(kind: str) -> None:
    members, questions = adapters(kind), with_head()
    weights = torch.rand(len(questions), 3, generator=torch.Generator().manual_seed(1))
    weights[0, 1] = weights[1, 2] = 0.0
    model = model_of(kind)
    joint = JointModel(model, members)
    prefix.shares_prompts(model)
    seen = counted(model)
    got = log_likelihoods(joint, questions, weights, batch_size=9, pad_id=PAD)
    wanted = by_hand(kind, members, questions, weights)
    for one, other in zip(got, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5 * max(1, max(map(abs, other))))
    readings = (weights != 0).sum(1).tolist()
    # Each member reads the head once for the letters and once for the texts.
    bodies = sum(
        n * (len(prompt) - len(HEAD) + sum(len(choice) - 1 for choice in choices))
        for n, (prompt, choices) in zip(readings, questions, strict=True)
    )
    most = 1.25 * (bodies + 2 * 3 * len(HEAD))
    assert (sum(seen) > most) is (kind in FORGETS)


def test_a_head_for_members_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded passes read the head for some members at a time; nothing changes."""
    members, questions = adapters("llama", 4), with_head()
    joint, weights = JointModel(model_of("llama"), members), torch.rand(len(questions), 5)
    wanted = log_likelihoods(joint, questions, weights, batch_size=9, pad_id=PAD)
    monkeypatch.setattr(prefix, "TOKENS", {"cpu": 40})
    monkeypatch.setattr(prefix, "HELD", {"cpu": 120})
    seen = counted(joint.model)
    got = log_likelihoods(joint, questions, weights, batch_size=9, pad_id=PAD)
    assert max(seen) <= 40
    for one, other in zip(got, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_members_mixed_inside_the_layers_read_whole_prompts() -> None:
    """Each prompt has its own mixture there, so no two read the same head."""
    model, members, questions = model_of("llama"), adapters("llama", 3)[1:], with_head()
    inside = LayerwiseModel(model, members, MoeRouting().delta)
    weights = torch.rand(len(questions), 3).softmax(1)
    got = log_likelihoods(inside, questions, weights, batch_size=9, pad_id=PAD)
    wanted = [
        log_likelihoods(inside, [one], weights[[i]], batch_size=1, pad_id=PAD)[0]
        for i, one in enumerate(questions)
    ]
    for one, other in zip(got, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_prompts_with_the_same_examples_are_batched_together() -> None:
    """Six subjects with worked examples of their own, in turn: every batch is of one subject."""
    draw = random.Random(0)
    shots = [tuple(draw.randrange(3, 40) for _ in range(60)) for _ in range(6)]
    questions: list[Asked] = [
        (shots[i % 6] + tuple(draw.randrange(3, 40) for _ in range(5 + i % 11)), [(4,), (5,)])
        for i in range(6 * 8)
    ]
    model = model_of("llama")
    prefix.shares_prompts(model)
    found = list(batches(questions, 4, model))
    assert sorted(i for indices, _ in found for i in indices) == list(range(48))
    assert all(len(indices) == 4 and len({i % 6 for i in indices}) == 1 for indices, _ in found)
    joint = JointModel(model, [None])
    seen = counted(model)
    got = log_likelihoods(joint, questions, torch.ones(48, 1), batch_size=8, pad_id=PAD)
    assert sum(seen) <= 6 * 60 + 1.25 * sum(len(prompt) - 60 for prompt, _ in questions)
    wanted = by_hand("llama", [None], questions[:9], torch.ones(9, 1))
    for one, other in zip(got, wanted, strict=False):
        assert one == pytest.approx(other, abs=1e-5)


def test_groups_of_prompts_that_begin_alike() -> None:
    long, other = tuple(range(20)), tuple(range(1, 21))
    prompts = [
        (*long, 5),
        (*other, 5),
        (*long, 6, 7),
        (1, 2),
        (*other, 8),
        (*long, 1),
        (*long[:15], 3),
    ]
    assert alike(prompts, 3) == [[0, 2, 5], [1, 3, 4, 6]]
    assert alike(prompts, 2) == [[0, 2, 5], [1, 4], [3, 6]]
    assert alike(prompts, 4) == [list(range(7))]
    assert alike([], 4) == []


def test_a_head_has_to_be_worth_it() -> None:
    head = tuple(range(LEAST))
    assert size_of_head([(*head, 1), (*head, 2, 3)], 1) == LEAST
    assert size_of_head([(*head, 1), (*head, 2, 3)], 2) == 0, "each member reads one prompt"
    assert size_of_head([(*head[1:], 1), (*head[1:], 2)], 1) == 0, "too short"
    assert size_of_head([(*head, *range(90)), (*head, *range(1, 91))], 1) == 0, "saves 8 %"
    assert size_of_head([head, (*head, 2)], 1) == 0, "a prompt needs a token of its own"
    assert size_of_head([(*head, 9), (*head, 9)], 1) == LEAST, "the last token is read by all"


def test_a_sliding_window_forgets() -> None:
    assert {kind: keeps_all(model_of(kind)) for kind in ("llama", "gpt2", "mistral", "gemma2")} == {
        "llama": True, "gpt2": True, "mistral": False, "gemma2": False,
    }  # fmt: skip


def test_transformers_without_a_class_for_layers_without_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """5.17 leaves such layers out of the cache."""
    older = ModuleType("transformers.cache_utils")
    vars(older).update({k: v for k, v in vars(cache_utils).items() if k != "DummyLayer"})
    monkeypatch.setitem(sys.modules, "transformers.cache_utils", older)
    monkeypatch.setattr(transformers, "cache_utils", older)
    for kind, whole in (("llama", True), ("mistral", False)):
        assert keeps_all(model_of(kind)) == whole and prefix.shares_prompts(model_of(kind))


def test_a_cache_of_a_head_is_left_as_it_was() -> None:
    """Two batches are cut from the same head."""
    joint, questions = JointModel(model_of("llama"), [None]), with_head()
    whole: Any = log_likelihoods(
        joint, questions, torch.ones(len(questions), 1), batch_size=9, pad_id=PAD
    )
    again: Any = log_likelihoods(
        joint, questions[::-1], torch.ones(len(questions), 1), batch_size=9, pad_id=PAD
    )
    for one, other in zip(whole, again[::-1], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
