"""Intervals and paired tests against published values, closed forms and their properties."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from elrea.evaluation.statistics import by_task, macro_interval, mcnemar, paired_interval, wilson


def answers(right: int, n: int) -> list[bool]:
    return [True] * right + [False] * (n - right)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_gives_the_published_values(right: int, n: int, low: float, high: float) -> None:
    assert wilson(answers(right, n)) == pytest.approx((low, high), abs=5.1e-5)


@settings(deadline=None, max_examples=60)
@given(some.integers(1, 400).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n))))
def test_wilson_laws(case: tuple[int, int]) -> None:
    right, n = case
    low, high = wilson(answers(right, n))
    assert 0 <= low <= right / n <= high <= 1
    mirrored = wilson(answers(n - right, n))
    assert mirrored == pytest.approx((1 - high, 1 - low)), "right and wrong are not symmetric"


def test_scipy_is_not_imported_with_the_module() -> None:
    """It takes half a second, which a refused command should not wait for."""
    script = "import sys, elrea.evaluation.statistics; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_wilson_solves_its_own_equation() -> None:
    """Both bounds p satisfy |p̂ - p| = z·√(p(1-p)/n)."""
    for bound in wilson(answers(70, 100)):
        assert abs(0.7 - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / 100))


def test_bootstrap_agrees_with_the_normal_approximation() -> None:
    """With many items the bootstrap tends to mean ± z·sd/√n."""
    generator = np.random.default_rng(0)
    n = 4000
    b = generator.random(n) < 0.6
    a = np.where(generator.random(n) < 0.2, generator.random(n) < 0.8, b)
    difference = a.astype(float) - b.astype(float)
    half = 1.959964 * difference.std() / math.sqrt(n)
    low, high = paired_interval(a, b, seed=1, resamples=40_000)
    assert low == pytest.approx(difference.mean() - half, abs=0.03 * half)
    assert high == pytest.approx(difference.mean() + half, abs=0.03 * half)


def test_bootstrap_by_hand() -> None:
    """Two items with differences 0 and 1: the mean is 0, 1/2, 1 with 1/4, 1/2, 1/4.

    With five equal items one in five of which differs, it is Binomial(5, 1/5)/5, whose 2.5 % and
    97.5 % points are 0 and 3/5 (its distribution function: .328, .737, .942, .993).
    """
    assert paired_interval([1, 1], [1, 0], seed=0) == (0.0, 1.0)
    assert paired_interval([1, 0, 0, 0, 0], [0] * 5, seed=0) == pytest.approx((0.0, 0.6))
    assert paired_interval([1, 0, 1], [1, 0, 1], seed=0) == (0.0, 0.0)


def test_bootstrap_equals_a_plain_loop_over_items() -> None:
    """The multinomial draw against resampling item by item."""
    generator = np.random.default_rng(5)
    a, b = generator.random((2, 200)) < [[0.7], [0.55]]
    difference = a.astype(float) - b.astype(float)
    means = [difference[generator.integers(0, 200, 200)].mean() for _ in range(20_000)]
    plain = np.quantile(means, [0.025, 0.975])
    assert paired_interval(a, b, seed=2, resamples=20_000) == pytest.approx(plain, abs=0.0051)


def test_seeds_count_as_item_means() -> None:
    """The interval of [seeds, items] is that of the items' means, not of seeds x items answers."""
    generator = np.random.default_rng(3)
    a, b = generator.random((2, 3, 150)) < 0.6
    expected = paired_interval(a.mean(axis=0), b.mean(axis=0), seed=4)
    assert paired_interval(a, b, seed=4) == expected
    assert paired_interval(np.repeat(a[:1], 3, axis=0), b, seed=4) == pytest.approx(
        paired_interval(a[0], b, seed=4)
    ), "three equal seeds have to count as one"


scores = some.lists(some.tuples(some.booleans(), some.booleans()), min_size=1, max_size=60)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(scores, some.randoms(use_true_random=False))
def test_permutation_laws(pairs: list[tuple[bool, bool]], shuffler: Any) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    low, high = paired_interval(a, b, seed=7, resamples=1000)
    assert -1 <= low <= high <= 1
    shuffled = list(pairs)
    shuffler.shuffle(shuffled)
    c, d = map(list, zip(*shuffled, strict=True))
    assert paired_interval(c, d, seed=7, resamples=1000) == (low, high), "order of items matters"
    # Swapping a and b negates the interval, up to the noise of resampling.
    swapped = paired_interval(b, a, seed=7, resamples=1000)
    noise = 0.5 / math.sqrt(len(pairs)) + 2 / len(pairs)  # four standard errors and two steps
    assert swapped == pytest.approx((-high, -low), abs=noise)
    first, second = mcnemar(a, b), mcnemar(b, a)
    assert (first.only_a, first.only_b) == (second.only_b, second.only_a)
    assert first.p == pytest.approx(second.p)
    assert mcnemar(c, d) == first


def test_the_same_seed_gives_the_same_interval_and_blocks_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 50))
    whole = paired_interval(a, b, seed=9, resamples=500)
    assert paired_interval(a, b, seed=9, resamples=500) == whole
    assert paired_interval(a, b, seed=10, resamples=500) != whole
    monkeypatch.setattr("elrea.evaluation.statistics._CELLS", 50 * 7)
    assert paired_interval(a, b, seed=9, resamples=500) == whole


def test_intervals_cover_the_true_difference_in_95_percent() -> None:
    generator = np.random.default_rng(11)
    hits = 0
    for seed in range(300):
        b = generator.random(250) < 0.6
        a = np.where(generator.random(250) < 0.3, generator.random(250) < 0.8, b)
        low, high = paired_interval(a, b, seed, resamples=1000)
        hits += low <= 0.3 * (0.8 - 0.6) <= high
    assert 0.91 <= hits / 300 <= 0.98, f"covered {hits} of 300"


def test_macro_interval_agrees_with_the_normal_approximation() -> None:
    """The variance of a mean of T proportions is (1/T²) Σ p(1 - p)/n."""
    shares = {"a": (600, 1000), "b": (90, 300), "c": (70, 100)}
    tasks = [task for task, (_, n) in shares.items() for _ in range(n)]
    correct = [right for hits, n in shares.values() for right in answers(hits, n)]
    mean = (0.6 + 0.3 + 0.7) / 3
    spread = math.sqrt(0.24 / 1000 + 0.21 / 300 + 0.21 / 100) / 3
    low, high = macro_interval(correct, tasks, seed=1, resamples=40_000)
    assert low == pytest.approx(mean - 1.959964 * spread, abs=0.001)
    assert high == pytest.approx(mean + 1.959964 * spread, abs=0.001)
    assert by_task(correct, tasks) == shares
    reversed_order = macro_interval(correct[::-1], tasks[::-1], seed=1, resamples=40_000)
    assert reversed_order == (low, high), "order of items matters"


def test_mcnemar_by_hand() -> None:
    """a alone is right on 8 items, b alone on 2: p = 2·(1 + 10 + 45)/2¹⁰ = 112/1024."""
    a = answers(8, 10) + [True] * 5 + [False] * 4
    b = [not right for right in answers(8, 10)] + [True] * 5 + [False] * 4
    test = mcnemar(a, b)
    assert (test.only_a, test.only_b) == (8, 2)
    assert test.p == pytest.approx(112 / 1024)
    assert mcnemar(a, a).p == 1.0
    assert mcnemar([1] * 6, [0] * 6).p == pytest.approx(2 / 64)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson([]),
        lambda: wilson([[True], [False]]),
        lambda: paired_interval([1, 0], [1, 0, 1], seed=0),
        lambda: paired_interval([], [], seed=0),
        lambda: paired_interval(np.zeros((0, 4)), np.zeros(4), seed=0),
        lambda: mcnemar([1, 0], [1]),
        lambda: mcnemar([], []),
        lambda: macro_interval([], [], seed=0),
        lambda: macro_interval([True], ["a", "b"], seed=0),
    ],
)
def test_missing_or_unequal_items_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match="items"):
        call()
