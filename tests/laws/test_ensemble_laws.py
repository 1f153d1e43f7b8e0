"""Properties of clustering, routing and mixing, on random inputs."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from elrea.method.clustering.centroids import centroids
from elrea.method.clustering.kmeans import FaissKMeans
from elrea.method.clustering.points import Points
from elrea.method.clustering.random import random_clusters
from elrea.method.clustering.sizes import by_size, dissolve
from elrea.method.ensemble.mixing import mix
from elrea.method.routing.weights import Router, Routing

SEEDS = st.integers(0, 2**32 - 1)
BRIEF = settings(max_examples=40, deadline=None, derandomize=True)
COSINES = st.tuples(st.integers(1, 5), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1, 1, width=32))
)
LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=40).map(np.array)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@BRIEF
@given(SEEDS, st.integers(1, 6), st.integers(1, 4), st.floats(-3, 3), st.floats(-3, 3))
def test_mixing_is_linear_in_logits_and_in_weights(seed, members, rows, a, b) -> None:
    x, y, w, u = (
        normal(seed, members, rows, 7),
        normal(seed + 1, members, rows, 7),
        normal(seed + 2, rows, members),
        normal(seed + 3, rows, members),
    )
    wanted = a * mix(x, w) + b * mix(y, w)
    torch.testing.assert_close(mix(a * x + b * y, w), wanted, rtol=1e-3, atol=1e-3)
    wanted = a * mix(x, w) + b * mix(x, u)
    torch.testing.assert_close(mix(x, a * w + b * u), wanted, rtol=1e-3, atol=1e-3)


@BRIEF
@given(SEEDS, st.integers(1, 8), st.data())
def test_permuting_the_members_changes_nothing(seed, members, data) -> None:
    order = list(data.draw(st.permutations(range(members))))
    x, w = normal(seed, members, 3, 7), normal(seed + 1, 3, members)
    torch.testing.assert_close(mix(x[order], w[:, order]), mix(x, w), rtol=1e-4, atol=1e-4)


@BRIEF
@given(SEEDS, st.integers(1, 8), st.data())
def test_permuting_the_clusters_permutes_experts_and_leaves_the_mix(seed, clusters, data) -> None:
    order = list(data.draw(st.permutations(range(clusters))))
    cosines = torch.tanh(normal(seed, 4, clusters))
    there, here = Routing(cosines[:, order], Router()), Routing(cosines, Router())
    torch.testing.assert_close(there.experts(), here.experts()[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(there.base, here.base)
    x = normal(seed + 1, clusters, 4, 7)
    top = mix(x[order], there.experts(2))
    torch.testing.assert_close(top, mix(x, here.experts(2)), rtol=1e-3, atol=1e-3)


@BRIEF
@given(COSINES, st.floats(0.1, 5), st.integers(1, 10), st.booleans())
def test_weights_are_shares_in_the_cosines_order(cosines, temperature, k, renormalise) -> None:
    routing = Routing(torch.from_numpy(cosines), Router(temperature, renormalise))
    full, kept = routing.experts(), routing.experts(k)
    assert bool(full.isfinite().all()) and bool((full >= 0).all())
    torch.testing.assert_close(full.sum(1), torch.ones(len(full)))
    for row, weights in zip(cosines, full.numpy(), strict=True):
        ranked = weights[np.argsort(row, kind="stable")]
        assert (np.diff(ranked) >= -1e-6).all(), "a nearer cluster weighs less"
    assert (kept > 0).sum(1).max() <= k
    if renormalise:
        torch.testing.assert_close(kept.sum(1), torch.ones(len(kept)))
    else:
        top = full.sort(dim=1, descending=True).values[:, :k].sum(1)
        torch.testing.assert_close(kept.sum(1), top)


@BRIEF
@given(SEEDS, st.integers(2, 8), st.floats(0.05, 20), st.floats(-5, 5))
def test_scale_and_level_of_the_cosines_do_not_count(seed, clusters, scale, level) -> None:
    """(5.9) standardises: only the base adapter's weight depends on how near the clusters are."""
    cosines = normal(seed, 3, clusters)
    assume(float(cosines.std(dim=1).min()) > 0.1)
    moved = Routing(cosines * scale + level, Router()).experts()
    torch.testing.assert_close(moved, Routing(cosines, Router()).experts(), rtol=1e-2, atol=1e-3)


@BRIEF
@given(LABELS)
def test_by_size_keeps_the_partition_and_orders_it(labels) -> None:
    got = by_size(labels)
    pairs = set(zip(labels.tolist(), got.tolist(), strict=True))
    assert len(pairs) == len(set(labels.tolist())) == len(set(got.tolist()))
    sizes = np.bincount(got)
    assert sizes.min() >= 1 and (np.diff(sizes) <= 0).all()


@BRIEF
@given(SEEDS, st.integers(1, 40), st.integers(1, 8), st.integers(0, 20))
def test_dissolving_leaves_no_small_cluster_and_moves_no_one_else(seed, n, k, least) -> None:
    cosines = np.random.default_rng(seed).uniform(-1, 1, (n, k))
    nearest_alive = lambda rows, alive: np.where(alive, cosines[rows], -2).argmax(1)  # noqa: E731
    got = dissolve(cosines.argmax(1), k, least, nearest_alive)
    alive = sorted(set(got.tolist()))
    sizes = [int((got == c).sum()) for c in alive]
    assert len(alive) == 1 or min(sizes) >= least
    nearest = np.array(alive)[cosines[:, alive].argmax(1)]
    np.testing.assert_array_equal(got, nearest)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 60), st.integers(1, 6), st.integers(1, 20))
def test_kmeans_assigns_every_row(seed, n, k, least) -> None:
    assume(n >= k)
    rows = np.random.default_rng(seed).standard_normal((n, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    kmeans = FaissKMeans(k=k, restarts=1, iterations=5, min_size=least)
    points = Points(rows, [""] * n)
    got = kmeans(points, seed)
    sizes = np.bincount(got)
    assert got.shape == (n,) and len(sizes) <= k and sizes.min() >= 1
    assert (np.diff(sizes) <= 0).all()
    np.testing.assert_array_equal(got, kmeans(points, seed))
    centres = centroids(rows, got)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(len(sizes)))


@BRIEF
@given(LABELS, SEEDS)
def test_random_clusters_are_a_permutation(labels, seed) -> None:
    dealt = random_clusters(labels, seed)
    assert sorted(dealt.tolist()) == sorted(labels.tolist())
    np.testing.assert_array_equal(dealt, random_clusters(labels, seed))
