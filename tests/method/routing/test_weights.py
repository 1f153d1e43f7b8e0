"""Cosines (5.8) and weights (5.9) equal values computed in the test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elrea.errors import ConfigError
from elrea.method.clustering import centroids as module
from elrea.method.clustering.centroids import centroids, cosines
from elrea.method.routing.weights import Router, Routing


def routing(*rows: list[float], **settings) -> Routing:
    return Routing(torch.tensor(rows), Router(**settings))


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def by_hand(rows: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(5.9) with the population's σ."""
    mean, deviation = rows.mean(1, keepdims=True), rows.std(1, keepdims=True)
    return softmax((rows - mean) / deviation / temperature)


def test_centroids_are_normalised_means() -> None:
    """The row of cluster -1 is in none."""
    features = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1, 0], [1.0, 0.0]], dtype=np.float32)
    got = centroids(features, np.array([0, 0, 1, -1, 0]))
    norm = 5**0.5
    torch.testing.assert_close(got, torch.tensor([[2 / norm, 1 / norm], [0.6, 0.8]]))
    near = cosines(np.array([[0.0, 1.0], [0.8, -0.6]], dtype=np.float32), got)
    wanted = torch.tensor([[1 / norm, 0.8], [1 / norm, 0.0]])
    torch.testing.assert_close(near, wanted, rtol=1e-5, atol=1e-6)


def test_cosines_do_not_see_lengths_and_no_feature_is_near_to_nothing() -> None:
    """Cosines of 0 weigh all experts alike and the base adapter 1."""
    centres = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    rows = np.array([[5.0, 0.0], [0.0, 0.0]], dtype=np.float16)
    got = cosines(rows, centres)
    torch.testing.assert_close(got, torch.tensor([[1.0, 0.6], [0.0, 0.0]]))
    lost = Routing(got[1:], Router())
    assert lost.experts().tolist() == [[0.5, 0.5]] and lost.base.tolist() == [1.0]


def test_members_that_cancel_are_near_to_no_prompt() -> None:
    """Their cluster's mean is no direction: cosines of 0, and weights as for any other cosines."""
    features = np.array([[0.6, 0.8], [-0.6, -0.8], [1.0, 0.0]], dtype=np.float32)
    centres = centroids(features, np.array([0, 0, 1]))
    assert centres.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    got = Routing(cosines(features, centres), Router())
    torch.testing.assert_close(got.cosines, torch.tensor([[0.0, 0.6], [0.0, -0.6], [0.0, 1.0]]))
    torch.testing.assert_close(
        got.experts(), routing([0.0, 0.6], [0.0, -0.6], [0.0, 1.0]).experts()
    )
    assert bool(got.experts().isfinite().all()) and got.base.tolist() == pytest.approx([0.4, 1, 0])
    alone = Routing(cosines(features, centres[:1]), Router())
    assert alone.experts().tolist() == [[1.0]] * 3 and alone.base.tolist() == [1.0] * 3


def test_blocks_change_nothing(monkeypatch, tmp_path) -> None:
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((50, 6)).astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    labels = draw.integers(-1, 3, 50)
    centres = centroids(rows, labels)
    near = cosines(rows, centres)
    monkeypatch.setattr(module, "BLOCK_BYTES", 7 * 6 * 4)
    torch.testing.assert_close(centroids(mapped, labels), centres)
    torch.testing.assert_close(cosines(mapped, centres), near)


def test_weights_on_paper() -> None:
    """Cosines 0.2 and 0.6: μ=0.4, σ=0.2, z=(-1, 1), w=(1, e²)/(1+e²)."""
    got = routing([0.2, 0.6]).experts()
    e2 = float(np.exp(2))
    torch.testing.assert_close(got, torch.tensor([[1 / (1 + e2), e2 / (1 + e2)]]))


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_weights_equal_the_formula(temperature: float) -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, (20, 7))
    got = Routing(torch.from_numpy(rows).float(), Router(temperature)).experts()
    np.testing.assert_allclose(got.numpy(), by_hand(rows, temperature), atol=1e-5)


def test_the_base_weighs_what_the_nearest_cluster_leaves() -> None:
    got = routing([0.2, 0.6, -0.9], [-0.5, -0.25, -0.75], [1.0, 0.0, 0.0]).base
    torch.testing.assert_close(got, torch.tensor([0.4, 1.25, 0.0]))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 0.9999, -1.0])
@pytest.mark.parametrize("clusters", [1, 2, 3, 8])
def test_equal_cosines_weigh_all_the_same(value: float, clusters: int) -> None:
    got = routing([value] * clusters).experts()
    torch.testing.assert_close(got, torch.full((1, clusters), 1 / clusters))


def test_differences_of_rounding_are_none() -> None:
    value = torch.tensor(0.7)
    up = torch.nextafter(value, torch.tensor(1.0))
    row = torch.stack([value, up, value, value])[None]
    torch.testing.assert_close(Routing(row, Router()).experts(), torch.full((1, 4), 0.25))


def test_top_k_with_and_without_renormalising() -> None:
    rows = [[0.1, 0.5, 0.3, 0.2], [0.9, -0.3, 0.0, 0.4]]
    full = by_hand(np.array(rows))
    kept = np.array([[0, 1, 1, 0], [1, 0, 0, 1]])
    plain = routing(*rows, renormalise=False).experts(2).numpy()
    np.testing.assert_allclose(plain, full * kept, atol=1e-6)
    again = routing(*rows).experts(2).numpy()
    np.testing.assert_allclose(again, full * kept / (full * kept).sum(1, keepdims=True), atol=1e-6)
    one = routing(*rows).experts(1)
    assert one.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    bare = routing(*rows, renormalise=False).experts(1)
    np.testing.assert_allclose(bare.sum(1).numpy(), full.max(1), atol=1e-6)


@pytest.mark.parametrize("k", [None, 3, 4, 100])
@pytest.mark.parametrize("renormalise", [True, False])
def test_k_of_c_and_more_keeps_all(k: int | None, renormalise: bool) -> None:
    row = [0.1, 0.5, 0.3]
    got = routing(row, renormalise=renormalise).experts(k).numpy()
    np.testing.assert_allclose(got, by_hand(np.array([row])), atol=1e-6)


def test_ties_keep_k_experts_and_no_more() -> None:
    assert (routing([0.5, 0.5, 0.5, 0.5]).experts(2) > 0).sum() == 2


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_orders_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"routing\.temperature"):
        Router(temperature)
