"""Intervals of a difference in which seeds vary: over seeds alone, and over seeds and items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
_CELLS = 4_000_000  # multinomial counts held at once in `seeds_items_interval`: 32 MB


def seeds_interval(per_seed: npt.ArrayLike) -> Interval | None:
    """95 % interval of a mean by Student's t, with seeds as units: mean ± t(0.975, S - 1) · sd / √S.

    Args:
        per_seed: `[S]`, one difference per seed.

    Returns:
        (low, high), or None with fewer than two seeds.
    """
    from scipy.stats import t

    each = np.asarray(per_seed, dtype=np.float64)
    if each.size < 2:
        return None
    half = float(t.ppf(0.975, each.size - 1) * each.std(ddof=1) / np.sqrt(each.size))
    return float(each.mean()) - half, float(each.mean()) + half


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
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
