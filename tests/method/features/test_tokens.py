"""Token counts as features, against counts by hand."""

from __future__ import annotations

import pytest
import torch

from elrea.data.prompts import Encoded
from elrea.errors import ConfigError
from elrea.method.features.gradient import extract
from elrea.method.features.tokens import Tokens
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach
from tests.models.builders import BUILDERS, PAD

PROMPTS = [
    Encoded("a", (5, 7, 5, 5), ()),
    Encoded("b", (5, 9), ()),
    Encoded("c", (7, 5, 5, 5), ()),  # the order does not count
    Encoded("none", (), ()),
]


def test_products_of_features_are_products_of_counts() -> None:
    model = attach(BUILDERS["llama"](), Lora(r=2), 0)
    told: list[int] = []
    features = Tokens(d=1 << 16, normalise=False, batch_size=2)
    got = extract(model, [], PROMPTS, features, pad_id=PAD, advance=told.append)
    counts = torch.zeros(4, 10)
    for row, prompt in enumerate(PROMPTS):
        for token in prompt.prompt:
            counts[row, token] += 1
    # With many more buckets than ids no two ids share one: every product is that of the counts.
    torch.testing.assert_close(got @ got.T, counts @ counts.T)
    unit = extract(model, [], PROMPTS, Tokens(d=1 << 16), pad_id=PAD)
    cosine = (3 * 1) / (10**0.5 * 2**0.5)
    torch.testing.assert_close(unit[0] @ unit[1], torch.tensor(cosine))
    assert not unit[3].any() and sum(told) == 4
    assert not features.from_base and features.passes(3) == 0


def test_few_buckets_are_shared_and_none_is_refused() -> None:
    model = attach(BUILDERS["llama"](), Lora(r=2), 0)
    assert extract(model, [], PROMPTS, Tokens(d=2), pad_id=PAD).shape == (4, 2)
    with pytest.raises(ConfigError, match=r"features\.d=0 must be at least 1"):
        Tokens(d=0)
