"""R: signs of ±1 from a seed, the same for every example."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elrea.errors import ConfigError
from elrea.method.features.projection import BLOCK, Full, Rademacher

SIZE = BLOCK + 300  # two blocks


def matrix(of: Rademacher, size: int) -> torch.Tensor:
    """Rᵀ/√d, [size, d], as it acts."""
    return of(torch.eye(size))


def test_entries_are_exactly_plus_and_minus_one_over_root_d() -> None:
    rows = torch.eye(SIZE)[[0, 1, BLOCK - 1, BLOCK, SIZE - 1]]
    entries = Rademacher(d=64)(rows)
    assert set(entries.unique().tolist()) == {-0.125, 0.125}
    assert len(entries.unique(dim=0)) == 5, "two columns of R are the same"


@pytest.mark.parametrize("d", [1, 3, 7, 100])
def test_any_dimension_has_its_full_count_of_signs(d: int) -> None:
    entries = matrix(Rademacher(d=d), 33)
    assert entries.shape == (33, d)
    torch.testing.assert_close(entries.abs(), torch.full((33, d), d**-0.5))


def test_every_call_and_every_example_meets_the_same_signs() -> None:
    g = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(0))
    together = Rademacher(d=32, seed=4)(g)
    for cut in (1, 2, 5):
        again = torch.cat([Rademacher(d=32, seed=4)(part) for part in g.split(cut)])
        torch.testing.assert_close(again, together, rtol=1e-5, atol=1e-4)
    same = Rademacher(d=32, seed=4)(g[:1].expand(5, -1).contiguous())
    torch.testing.assert_close(same, same[:1].expand(5, -1))


def test_signs_of_the_first_parameters_do_not_depend_on_how_many_there_are() -> None:
    g = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    longer = torch.cat([g, torch.zeros(2, SIZE - 500)], dim=1)
    short = Rademacher(d=24)
    torch.testing.assert_close(short(longer), short(g), rtol=1e-5, atol=1e-5)


def test_seeds_and_blocks_differ() -> None:
    one, other = matrix(Rademacher(d=64, seed=0), 200), matrix(Rademacher(d=64, seed=1), 200)
    assert abs(float((one == other).float().mean()) - 0.5) < 0.03
    many = Rademacher(d=64)
    first, second = (many.signs(b, 200, torch.device("cpu")) for b in (0, 1))
    assert abs(float((first == second).float().mean()) - 0.5) < 0.03


@pytest.mark.parametrize("d", [1, 7, 24, 1024])
def test_signs_are_the_bits_of_philox_in_their_order(d: int) -> None:
    """Bit by bit, the highest of each byte first: features in a store stay comparable with new ones."""
    of = Rademacher(d=d, seed=3)
    raw = np.random.Philox(key=[3, 2]).random_raw(-(-33 * d // 64)).astype("<u8").tobytes()
    bits = [(raw[i // 8] >> (7 - i % 8)) & 1 for i in range(33 * d)]
    wanted = torch.tensor(bits).float().view(33, d) * 2 - 1
    assert torch.equal(of.signs(2, 33, torch.device("cpu")), wanted)


def test_signs_are_balanced_and_columns_uncorrelated() -> None:
    """Fair signs: their mean deviates by 1/√(count), an entry of RᵀR by 1/√d; bounds at 5 or 6 of those."""
    d, size = 10_000, 40
    entries = matrix(Rademacher(d=d), size) * d**0.5
    assert abs(float(entries.mean())) < 5 * (d * size) ** -0.5
    gram = entries @ entries.T / d
    torch.testing.assert_close(gram.diagonal(), torch.ones(size), rtol=1e-4, atol=1e-4)
    assert float((gram - torch.eye(size)).abs().max()) < 6 * d**-0.5


def test_the_expected_gram_matrix_is_the_identity() -> None:
    """E[RᵀR] = I over seeds with R/√d. A factor of d says that the scale is missing."""
    seeds, size, d = 400, 12, 16
    total = torch.zeros(size, size)
    for seed in range(seeds):
        entries = matrix(Rademacher(d=d, seed=seed), size)
        total += entries @ entries.T
    deviation = (total / seeds - torch.eye(size)).abs().max()
    assert float(deviation) < 5 * (d * seeds) ** -0.5


def test_lengths_and_cosines_survive() -> None:
    g = torch.randn(6, 2000, generator=torch.Generator().manual_seed(0))
    g[1] = g[0] + 0.5 * g[1]
    projected = Rademacher(d=4096)(g)
    before, after = (torch.nn.functional.normalize(x, dim=1) for x in (g, projected))
    assert float((before @ before.T - after @ after.T).abs().max()) < 0.08
    torch.testing.assert_close(projected.norm(dim=1), g.norm(dim=1), rtol=0.06, atol=0)


def test_dimensions_and_no_projection() -> None:
    assert Rademacher(d=5).dimension(100) == 5
    g = torch.randn(2, 7)
    full = Full()(g)
    assert Full().dimension(7) == 7 and torch.equal(full, g)
    assert full.data_ptr() != g.data_ptr()


@pytest.mark.parametrize("settings", [{"d": 0}, {"seed": -1}])
def test_wrong_settings_are_refused(settings: dict[str, int]) -> None:
    (name, value), *_ = settings.items()
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        Rademacher(**settings)
