"""Properties of gradients, Adam's form and projections, on random examples."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elrea.data.batches import pad
from elrea.method.features.adam import AdamState, adam_direction
from elrea.method.features.per_example import PerExampleGradients
from elrea.method.features.projection import Rademacher
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, set_state
from tests.models.builders import BUILDERS, PAD, random_adapter

SHAPE = Lora(r=2)
MODELS = {kind: attach(BUILDERS[kind](), SHAPE, 0) for kind in ("llama", "gpt2")}
for kind, model in MODELS.items():
    set_state(model, random_adapter(kind, SHAPE, 1)[0])
GRADIENTS = {kind: PerExampleGradients(model) for kind, model in MODELS.items()}

TOKENS = st.lists(st.integers(0, 39), min_size=2, max_size=9).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)
BRIEF = settings(max_examples=15, deadline=None, derandomize=True)


def gradients(kind: str, prompts: list[tuple[int, ...]]) -> torch.Tensor:
    ids, mask = pad(prompts, PAD)
    return GRADIENTS[kind](ids, mask, mask)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@BRIEF
@given(st.sampled_from(sorted(MODELS)), st.lists(TOKENS, min_size=1, max_size=6), st.data())
def test_a_gradient_does_not_depend_on_its_batch(kind, prompts, data) -> None:
    together = gradients(kind, prompts)
    order = data.draw(st.permutations(range(len(prompts))))
    size = data.draw(st.integers(1, len(prompts)))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        got = gradients(kind, [prompts[i] for i in batch])
        scale = together[batch].abs().amax(1, keepdim=True).clamp(min=1e-3)
        torch.testing.assert_close(got / scale, together[batch] / scale, rtol=0, atol=1e-4)


@BRIEF
@given(SEEDS, st.integers(1, 40), st.integers(1, 5000), st.floats(-3, 3), st.floats(-3, 3))
def test_projection_is_linear(seed, d, size, a, b) -> None:
    projection = Rademacher(d=d, seed=seed % 1000)
    x, y = normal(seed, 2, size), normal(seed + 1, 2, size)
    got = projection(a * x + b * y)
    torch.testing.assert_close(got, a * projection(x) + b * projection(y), rtol=1e-3, atol=2e-2)


@BRIEF
@given(SEEDS, st.integers(1, 30), st.integers(1, 200))
def test_every_entry_is_a_sign_and_alike_for_all_examples(seed, d, size) -> None:
    entries = Rademacher(d=d, seed=seed)(torch.eye(size))
    torch.testing.assert_close(entries.abs(), torch.full((size, d), d**-0.5))
    g = normal(seed, 3, size)
    np.testing.assert_allclose(
        Rademacher(d=d, seed=seed)(g).numpy(), (g @ entries).numpy(), rtol=1e-3, atol=1e-3
    )


@BRIEF
@given(SEEDS, st.integers(0, 5000), st.booleans(), st.floats(0.5, 0.999), st.floats(0.5, 0.9999))
def test_adams_form_against_float64(seed, step, momentum, beta1, beta2) -> None:
    g, m = normal(seed, 3, 20).double().numpy(), normal(seed + 1, 20).double().numpy()
    v = normal(seed + 2, 20).double().numpy() ** 2
    state = AdamState(
        torch.tensor(m).float(), torch.tensor(v).float(), step, 0.1, beta1, beta2, 1e-8
    )
    got = adam_direction(torch.tensor(g).float(), state, momentum)
    t = step + 1
    first = ((beta1 * m if momentum else 0) + (1 - beta1) * g) / (1 - beta1**t)
    second = (beta2 * v + (1 - beta2) * g * g) / (1 - beta2**t)
    wanted = 0.1 * first / (np.sqrt(second) + 1e-8)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=5e-3, atol=1e-4)


@BRIEF
@given(SEEDS, st.floats(0.01, 100))
def test_without_momentum_adams_form_is_odd_and_forgets_lengths(seed, factor) -> None:
    """With v = 0 only signs are left, whatever the gradient's length; -g goes the other way."""
    g = normal(seed, 2, 30)
    zeros = torch.zeros(30)
    fresh = AdamState(zeros, zeros, 0, 1.0, 0.9, 0.999, 0.0)
    signs = adam_direction(g * factor, fresh, momentum=False)
    torch.testing.assert_close(signs, g.sign(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(adam_direction(-g, fresh, momentum=False), -signs)
