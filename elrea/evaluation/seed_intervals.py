"""Intervals and p-values of a difference in which seeds vary: over seeds alone, and over seeds and items.

Each p-value belongs to the interval of the same name: it is below 0.05 where the interval excludes 0, give or take one
resample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
_CELLS = 4_000_000  # multinomial counts held at once in `seeds_items_interval`: 32 MB


def seeds_interval(per_seed: npt.ArrayLike) -> Interval | None:
    """95 % interval of a mean by Student's t, with seeds as units: mean ± t(0.975, S - 1) · sd / √S.

    Args:
        per_seed: `[S]`, one difference per seed.

    Returns:
        (low, high); None with fewer than two seeds, or where all have the same value: t is then not defined.
    """
    test = _t_test(per_seed)
    if test is None:
        return None
    low, high = test.confidence_interval(0.95)
    return float(low), float(high)


def seeds_items_interval(
    differences: npt.ArrayLike, seed: int = 0, resamples: int = 10_000
) -> Interval | None:
    """95 % percentile interval of a mean, with seeds and items resampled independently.

    Every seed answers the same items, so seeds and items are crossed, not nested: a resample draws S seeds and n items
    with replacement and takes the mean over their S · n cells ("pigeonhole bootstrap", Owen 2007, The Annals of Applied
    Statistics 1:386). With few seeds it is too narrow, since S seeds show (S - 1) / S of their variance.

    Args:
        differences: `[S, n]`, one strategy's score less another's.
        seed: Of the resampling.
        resamples: Bootstrap samples.

    Returns:
        (low, high), or None with fewer than two seeds.
    """
    means = _resampled_means(differences, seed, resamples)
    if means is None:
        return None
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def seeds_p(per_seed: npt.ArrayLike) -> float | None:
    """Two-sided p-value of "the mean is 0" by Student's t, with seeds as units; belongs to `seeds_interval`.

    Args:
        per_seed: `[S]`, one difference per seed.

    Returns:
        The p-value; None with fewer than two seeds, or where all have the same difference: t is then not defined.
    """
    test = _t_test(per_seed)
    return None if test is None else float(test.pvalue)


def seeds_items_p(
    differences: npt.ArrayLike, seed: int = 0, resamples: int = 10_000
) -> float | None:
    """Two-sided p-value of "the mean is 0" from the resamples of `seeds_items_interval`.

    Twice the share of resampled means on the rarer side of 0, 0 included. One resample is added to each side, so that
    the value is never 0 (Davison and Hinkley 1997, Bootstrap Methods and their Application, section 4.2.3).

    Args:
        differences: `[S, n]`, one strategy's score less another's.
        seed: Of the resampling.
        resamples: Bootstrap samples.

    Returns:
        The p-value, or None with fewer than two seeds.
    """
    means = _resampled_means(differences, seed, resamples)
    if means is None:
        return None
    # Means of sums of 0, 1 and -1 that should be 0 may differ from it in the last bit.
    below, above = int((means <= 1e-12).sum()), int((means >= -1e-12).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (resamples + 1))


def _t_test(per_seed: npt.ArrayLike) -> Any:
    """Student's t-test of "the mean is 0"; None where t is not defined."""
    from scipy.stats import ttest_1samp

    each = np.asarray(per_seed, dtype=np.float64)
    if each.size < 2 or np.ptp(each) < 1e-12:
        return None
    return ttest_1samp(each, 0)


def _resampled_means(
    differences: npt.ArrayLike, seed: int, resamples: int
) -> npt.NDArray[np.float64] | None:
    """The mean of each resample [resamples]; None with fewer than two seeds."""
    cells = np.asarray(differences, dtype=np.float64)
    count, n = cells.shape
    if count < 2:
        return None
    # Items with equal differences in all seeds are one kind; right and wrong make at most 3^S kinds.
    kinds, sizes = np.unique(np.round(cells, 12), axis=1, return_counts=True)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _CELLS // sizes.size)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        seeds = generator.multinomial(count, np.full(count, 1 / count), size=stop - start)
        items = generator.multinomial(n, sizes / n, size=stop - start)
        means[start:stop] = ((seeds @ kinds) * items).sum(axis=1) / (count * n)
    return means
