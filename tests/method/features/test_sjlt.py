"""S: a few signs in each column, the same for every example."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elrea.errors import ConfigError
from elrea.method.features import sjlt
from elrea.method.features.projection import Rademacher
from elrea.method.features.sjlt import Sjlt

CASES = [(1, 1), (3, 3), (7, 2), (64, 1), (64, 4), (100, 4), (1000, 4)]
SHAPES = pytest.mark.parametrize(("d", "nonzeros"), CASES)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix(of: Sjlt, size: int) -> torch.Tensor:
    """Sᵀ, [size, d], as it acts."""
    return of(torch.eye(size))


@SHAPES
def test_each_coordinate_has_its_count_of_equal_entries(d: int, nonzeros: int) -> None:
    entries = matrix(Sjlt(d, 0, nonzeros), 250)
    assert bool(((entries != 0).sum(1) == nonzeros).all())
    torch.testing.assert_close(entries[entries != 0].abs().unique(), torch.tensor([nonzeros**-0.5]))
    torch.testing.assert_close(entries.norm(dim=1), torch.ones(250))


@SHAPES
def test_it_is_the_sum_that_its_pieces_say(d: int, nonzeros: int, monkeypatch) -> None:
    """Bucket (i + shift) mod d gets sign · g_i: one coordinate after the other, in float64, over many groups."""
    monkeypatch.setattr(sjlt, "GROUP_WORDS", 300)
    of, g = Sjlt(d, 5, nonzeros), normal(0, 4, 777)
    wanted = np.zeros((4, d))
    starts = []
    for start, shifts, signs in of.groups(777, g.device):
        starts.append(start)
        for i in range(start, min(start + len(shifts) * d, 777)):
            block, place = divmod(i - start, d)
            for j in range(nonzeros):
                bucket = (place + int(shifts[block, j])) % d
                wanted[:, bucket] += float(signs[j, block, place]) * g[:, i].double().numpy()
    assert len(starts) > 2 or d == 1000
    np.testing.assert_allclose(of(g).numpy(), wanted / nonzeros**0.5, rtol=1e-4, atol=1e-4)


@SHAPES
def test_the_accelerators_way_gives_the_same(d: int, nonzeros: int, monkeypatch) -> None:
    of, g = Sjlt(d, 1, nonzeros), normal(0, 3, 2345)
    here = of(g)
    monkeypatch.setattr(sjlt, "_ring", sjlt._gather)
    torch.testing.assert_close(of(g), here, rtol=1e-5, atol=1e-4)


def test_groups_and_lengths_change_no_sign(monkeypatch) -> None:
    g = normal(0, 2, 500)
    longer = torch.cat([g, torch.zeros(2, 4000)], dim=1)
    monkeypatch.setattr(sjlt, "GROUP_WORDS", 1000)
    torch.testing.assert_close(Sjlt(24)(longer), Sjlt(24)(g), rtol=1e-5, atol=1e-5)


def test_rows_do_not_touch_each_other() -> None:
    g = normal(0, 5, 3000)
    together = Sjlt(32, 4)(g)
    for cut in (1, 2):
        again = torch.cat([Sjlt(32, 4)(part) for part in g.split(cut)])
        assert torch.equal(again, together)


def test_a_part_of_a_wider_tensor_is_projected_alike() -> None:
    wide = normal(0, 4, 3000)
    part = wide[1:3, 500:2500]
    torch.testing.assert_close(Sjlt(64)(part), Sjlt(64)(part.contiguous()))


def test_seeds_differ_and_any_64_bit_seed_will_do() -> None:
    """Signs agree half the time, shifts 1 in 64."""
    cpu = torch.device("cpu")
    ((_, one, signs),) = Sjlt(64, 0, 2).groups(64_000, cpu)
    ((_, two, other),) = Sjlt(64, 1, 2).groups(64_000, cpu)
    assert one.shape == (1000, 2) and signs.shape == (2, 1000, 64)
    assert abs(float((signs == other).float().mean()) - 0.5) < 5 * 0.5 / 128_000**0.5
    assert abs(float((signs[0] == signs[1]).float().mean()) - 0.5) < 5 * 0.5 / 64_000**0.5
    assert abs((one == two).mean() - 1 / 64) < 5 * (2000 * 64) ** -0.5
    assert matrix(Sjlt(8, 2**63), 20).shape == (20, 8)


def test_shifts_are_different_and_evenly_spread() -> None:
    """Every set of 3 of 5 as often: 10 sets, 20,000 draws, so 2,000 each, give or take 5 · √1800."""
    words = np.random.Philox(key=[0, 0]).random_raw(60_000).reshape(-1, 3)
    sets = np.sort(sjlt._distinct(words, 5), axis=1)
    found, counts = np.unique(sets, axis=0, return_counts=True)
    assert len(found) == 10 and bool((np.diff(found, axis=1) > 0).all())
    assert abs(counts - 2000).max() < 5 * 1800**0.5


@pytest.mark.parametrize("nonzeros", [1, 4])
def test_the_expected_gram_matrix_is_the_identity(nonzeros: int) -> None:
    """E[SSᵀ] = I over seeds, within a block of 16 and across. A factor says that the scale is wrong."""
    seeds, size, d = 400, 40, 16
    total = torch.zeros(size, size)
    for seed in range(seeds):
        entries = matrix(Sjlt(d, seed, nonzeros), size)
        total += entries @ entries.T
    deviation = (total / seeds - torch.eye(size)).abs().max()
    assert float(deviation) < 5.5 * (d * seeds) ** -0.5


@pytest.mark.parametrize("nonzeros", [1, 4])
def test_the_error_of_an_inner_product_is_a_dense_projections(nonzeros: int) -> None:
    """Var⟨Sx, Sy⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² - 2 Σ x²y²)/d for dense signs; for these that, or a little less."""
    seeds, size, d = 400, 300, 32
    x, y = normal(0, 2, size)
    y = 0.3 * x + y
    exact = float(x @ y)
    law = float(x @ x * (y @ y) + exact**2 - 2 * (x * y).square().sum()) / d
    errors = {}
    for name, kind in (("dense", Rademacher), ("sparse", Sjlt)):
        more = {"nonzeros": nonzeros} if name == "sparse" else {}
        pairs = [kind(d=d, seed=seed, **more)(torch.stack([x, y])) for seed in range(seeds)]
        errors[name] = np.array([float(a @ b) - exact for a, b in pairs])
    for found in errors.values():
        assert abs(found.mean()) < 5 * (law / seeds) ** 0.5
    # A variance from 400 draws is known to 7 %.
    assert 0.75 < errors["dense"].var() / law < 1.25
    assert 0.65 < errors["sparse"].var() / law < 1.25


def test_lengths_and_cosines_survive() -> None:
    g = normal(0, 6, 20_000)
    g[1] = g[0] + 0.5 * g[1]
    projected = Sjlt(d=4096)(g)
    before, after = (torch.nn.functional.normalize(x, dim=1) for x in (g, projected))
    assert float((before @ before.T - after @ after.T).abs().max()) < 0.08
    torch.testing.assert_close(projected.norm(dim=1), g.norm(dim=1), rtol=0.06, atol=0)


@pytest.mark.parametrize(
    "settings", [{"d": 0}, {"seed": -1}, {"nonzeros": 0}, {"nonzeros": 9, "d": 8}]
)
def test_wrong_settings_are_refused(settings: dict[str, int]) -> None:
    (name, value), *_ = settings.items()
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        Sjlt(**settings)
    assert Sjlt(d=5).dimension(100) == 5
