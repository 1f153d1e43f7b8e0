"""δ over two checkpoints equals a sum computed in the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from elrea.data.prompts import Encoded
from elrea.errors import ConfigError
from elrea.method.features.gradient import GradientFeatures, extract
from elrea.method.features.per_example import PerExampleGradients
from elrea.method.features.projection import Full, Rademacher
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, load, set_state
from elrea.models.training.moments import Moments
from elrea.models.training.train import epoch_folders
from tests.method.features import by_hand
from tests.models.builders import BUILDERS, PAD, train

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
    assert len(sizes) == 4 and sizes[0] + sizes[1] == sizes[2] + sizes[3] == 300
    assert 200 < sizes[0] <= 282
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
def test_a_prompt_without_a_gradient_has_a_row_of_zeros(
    trained, features: GradientFeatures
) -> None:
    model, folders = trained
    prompts = [PROMPTS[0], Encoded("one-token", (5,), ()), PROMPTS[3], Encoded("none", (), ())]
    got = extract(model, folders, prompts, features, pad_id=PAD)
    assert not got[1].any() and not got[3].any()
    alone = extract(model, folders, [PROMPTS[0], PROMPTS[3]], features, pad_id=PAD)
    torch.testing.assert_close(got[[0, 2]], alone, rtol=0, atol=5e-4)


def test_a_gradient_that_is_not_finite_spoils_its_own_row_alone(trained) -> None:
    model, folders = trained
    lonely = next(t for t in range(2, 40) if not any(t in p.prompt for p in PROMPTS))

    def poison(_module, inputs, output):
        return output.masked_fill((inputs[0] == lonely)[..., None], float("nan"))

    features = GradientFeatures(Rademacher(d=16))
    clean = extract(model, folders, PROMPTS[:4], features, pad_id=PAD)
    handle = model.get_input_embeddings().register_forward_hook(poison)
    try:
        prompts = [*PROMPTS[:2], Encoded("bad", (lonely, 5, 6, 7), ()), *PROMPTS[2:4]]
        got = extract(model, folders, prompts, features, pad_id=PAD)
    finally:
        handle.remove()
    assert not got[2].any()
    torch.testing.assert_close(got[[0, 1, 3, 4]], clean, rtol=0, atol=5e-4)


def test_epochs_weigh_what_they_are_given(trained) -> None:
    """In SGD's form without normalising, features are linear in the weights: (1·a + 3·b)/4."""
    model, folders = trained
    features = GradientFeatures(Rademacher(d=32), form="sgd", normalise=False)

    def of(weights: list[float] | None) -> torch.Tensor:
        given = replace(features, epoch_weights=weights)
        return extract(model, folders, PROMPTS, given, pad_id=PAD)

    first, last = of([1, 0]), of([0, 2])
    torch.testing.assert_close(of([1, 3]), (first + 3 * last) / 4, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of(None), (first + last) / 2, rtol=1e-4, atol=1e-5)
    assert replace(features, epoch_weights=[0, 1]).passes(2) == 2 and features.passes(3) == 6
    with pytest.raises(ConfigError, match=r"^features\.epoch_weights: 3 weights for 2 epochs"):
        of([1, 1, 1])


def test_without_normalising_lengths_stay(trained) -> None:
    model, folders = trained
    features = GradientFeatures(Rademacher(d=32))
    unit = extract(model, folders, PROMPTS, features, pad_id=PAD)
    raw = extract(model, folders, PROMPTS, replace(features, normalise=False), pad_id=PAD)
    lengths = raw.norm(dim=1, keepdim=True)
    torch.testing.assert_close(raw / lengths, unit, rtol=1e-4, atol=1e-5)
    assert float(lengths.max() / lengths.min()) > 1.001


def test_layers_choose_columns_of_the_full_gradient(trained) -> None:
    model, folders = trained
    full = GradientFeatures(Full(), form="sgd", normalise=False)
    names = PerExampleGradients(model).slots
    whole = extract(model, folders, PROMPTS, full, pad_id=PAD)
    last = extract(model, folders, PROMPTS, replace(full, layers=1), pad_id=PAD)
    columns = torch.cat([torch.arange(s.start, s.start + s.size) for s in names if ".1." in s.name])
    assert 0 < last.shape[1] == len(columns) < whole.shape[1]
    torch.testing.assert_close(last, whole[:, columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [[-1.0, 1.0], [0.0, 0.0], [float("inf")], [float("nan")]])
def test_weights_that_make_no_mean_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="epoch_weights"):
        GradientFeatures(epoch_weights=weights)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'adam' or 'sgd', not 'sign'"):
        GradientFeatures(form="sign")


def test_epoch_weights_need_a_known_number_of_epochs() -> None:
    weighted = GradientFeatures(epoch_weights=[1.0, 2.0])
    weighted.check(2)
    with pytest.raises(
        ConfigError, match=r"^features\.epoch_weights .*early_stop leaves their number open"
    ):
        weighted.check(None)
    GradientFeatures().check(None)
