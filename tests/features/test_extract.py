"""δ put together by hand over two checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from elrea.adapters.lora import Lora, attach, load, set_state
from elrea.adapters.moments import Moments
from elrea.adapters.training import epoch_folders
from elrea.data.prompts import Encoded
from elrea.errors import DataError
from elrea.features.extract import GradientFeatures, extract
from elrea.features.projection import Full, Rademacher
from tests.adapters.builders import BUILDERS, PAD, train
from tests.features import by_hand

PROMPTS = by_hand.prompts(11, masked=True)
LORA = Lora(r=2, dropout=0.1)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def trained(request, tmp_path_factory) -> tuple[PeftModel, list[Path]]:
    """A model and two epochs' checkpoints, moments included."""
    folder = tmp_path_factory.mktemp(request.param)
    train(folder, request.param, lora=LORA, epochs=2)
    folders = epoch_folders(folder)
    assert len(folders) == 2
    return attach(BUILDERS[request.param](), LORA, 5), folders


def delta(model: PeftModel, folders: list[Path], features: GradientFeatures) -> np.ndarray:
    """(5.2), (5.5) to (5.7) in float64: mean over checkpoints first, then one normalisation."""
    total = np.zeros(())
    for folder in folders:
        set_state(model, load(folder)[0])
        g = by_hand.gradients(model, PROMPTS)
        if features.form == "adam":
            g = by_hand.adam(g, Moments.load(folder), features.momentum)
        if isinstance(features.projection, Rademacher):
            r = features.projection(torch.eye(g.shape[1])).double().numpy()
            g = g @ np.sign(r)
        total = total + g
    mean = total / len(folders)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "features",
    [
        GradientFeatures(Rademacher(d=64, seed=3)),
        GradientFeatures(Rademacher(d=64), momentum=False),
        GradientFeatures(Rademacher(d=64), form="sgd"),
        GradientFeatures(Full(), form="sgd"),
    ],
    ids=["adam", "no-momentum", "sgd", "full"],
)
def test_equals_the_composition_by_hand(trained, features: GradientFeatures) -> None:
    model, folders = trained
    done: list[int] = []
    batched = replace(features, batch_size=4)
    got = extract(model, folders, PROMPTS, batched, pad_id=PAD, advance=done.append)
    np.testing.assert_allclose(got.numpy(), delta(model, folders, features), rtol=0, atol=5e-4)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(len(PROMPTS)))
    assert got.dtype == torch.float32 and sum(done) == len(PROMPTS) * 2


@pytest.mark.parametrize("form", ["adam", "sgd"])
def test_batch_size_changes_nothing_beyond_rounding(trained, form: str) -> None:
    model, folders = trained
    features = GradientFeatures(Rademacher(d=64), form=form, batch_size=1)
    alone = extract(model, folders, PROMPTS, features, pad_id=PAD)
    for size in (3, 32):
        got = extract(model, folders, PROMPTS, replace(features, batch_size=size), pad_id=PAD)
        torch.testing.assert_close(got, alone, rtol=0, atol=2e-5 if form == "sgd" else 5e-4)


def test_the_buffer_changes_nothing_beyond_rounding(trained) -> None:
    """One MiB holds 256 gradients of GPT-2's adapter here and 282 of Llama's: 300 need two rounds."""
    model, folders = trained
    sizes: list[int] = []

    class Watched(Rademacher):
        def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
            sizes.append(len(gradients))
            return super().__call__(gradients)

    features = GradientFeatures(Watched(d=16), form="sgd", batch_size=32, buffer_mb=1)
    prompts = by_hand.prompts(300)
    small = extract(model, folders, prompts, features, pad_id=PAD)
    assert sizes == [256, 44] * 2
    large = extract(model, folders, prompts, replace(features, buffer_mb=96), pad_id=PAD)
    assert sizes[4:] == [300] * 2
    torch.testing.assert_close(small, large, rtol=0, atol=2e-5)


def test_a_feature_depends_on_its_own_prompt_alone(trained) -> None:
    model, folders = trained
    features = GradientFeatures(Rademacher(d=64), form="sgd", batch_size=4)
    together = extract(model, folders, PROMPTS, features, pad_id=PAD)
    backwards = extract(model, folders, PROMPTS[::-1], features, pad_id=PAD + 1)
    torch.testing.assert_close(backwards.flip(0), together, rtol=0, atol=2e-5)
    assert float((together @ together.T - torch.eye(len(PROMPTS))).max()) < 0.999


def test_every_checkpoint_counts_and_the_seed_of_the_signs(trained) -> None:
    model, folders = trained
    features = GradientFeatures(Rademacher(d=64))
    both, first, last = (
        extract(model, some, PROMPTS, features, pad_id=PAD)
        for some in (folders, folders[:1], folders[1:])
    )
    other = extract(model, folders, PROMPTS, GradientFeatures(Rademacher(d=64, seed=1)), pad_id=PAD)
    for different in (first, last, other):
        assert float((both - different).abs().max()) > 0.01


@pytest.mark.parametrize(
    "features",
    [
        GradientFeatures(Rademacher(d=16), form="sgd"),
        GradientFeatures(Rademacher(d=16), momentum=False),
        GradientFeatures(Rademacher(d=16)),  # the shared momentum alone is no feature
    ],
    ids=["sgd", "no-momentum", "adam"],
)
def test_a_zero_gradient_names_its_example(trained, features: GradientFeatures) -> None:
    model, folders = trained
    prompts = [*PROMPTS[:2], Encoded("exam/one-token", (5,), ()), PROMPTS[3]]
    with pytest.raises(DataError, match=r"^exam/one-token: its gradient is zero") as caught:
        extract(model, folders, prompts, features, pad_id=PAD)
    assert "\n" not in str(caught.value)


def test_a_gradient_that_is_not_finite_names_its_example_alone(trained) -> None:
    model, folders = trained
    lonely = next(t for t in range(2, 40) if not any(t in p.prompt for p in PROMPTS))

    def poison(_module, inputs, output):
        return output.masked_fill((inputs[0] == lonely)[..., None], float("nan"))

    handle = model.get_input_embeddings().register_forward_hook(poison)
    try:
        prompts = [*PROMPTS[:2], Encoded("bad", (lonely, 5, 6), ()), PROMPTS[3]]
        with pytest.raises(DataError, match=r"^bad: its gradient is zero or not finite"):
            extract(model, folders, prompts, GradientFeatures(Rademacher(d=16)), pad_id=PAD)
    finally:
        handle.remove()


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'adam' or 'sgd', not 'sign'"):
        GradientFeatures(form="sign")
