"""Confidence intervals for one strategy and paired tests between two.

Every strategy answers the same test items, so differences are always taken item by item: the items' difficulty, by far
the largest source of noise, cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elrea.store.files import sha256_of

MOST_RESAMPLES = 1_000_000
"""Upper limit for bootstrap samples: the bounds' sampling error is then near 0.1 % of the width."""
_CELLS = 4_000_000  # multinomial counts held at once in `paired_interval`: 32 MB


@dataclass(frozen=True, slots=True)
class McNemar:
    """The outcome of McNemar's exact test.

    Attributes:
        only_a: items that a alone has right.
        only_b: items that b alone has right.
        p: two-sided exact p-value of "both are right equally often".
    """

    only_a: int
    only_b: int
    p: float


def wilson(correct: npt.ArrayLike) -> tuple[float, float]:
    """95 % interval of a proportion by Wilson's score (Wilson 1927, equation 5).

    With n items of which a share p is right and z = 1.96:
    (p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    Unlike p ± 1.96·s it stays within [0, 1] and has a width above 0 at p = 0 and p = 1.

    Args:
        correct: `[items]`, True or 1 where the answer is right.

    Returns:
        (low, high) as shares of 1.

    Raises:
        ValueError: no items, or not one dimension.
    """
    from scipy.stats import binomtest

    right = np.asarray(correct, dtype=bool)
    if right.ndim != 1 or right.size == 0:
        raise ValueError(f"wilson() needs correct [items] with items > 0, not {right.shape}")
    interval = binomtest(int(right.sum()), right.size).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def paired_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, seed: int, resamples: int = 10_000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of mean(a) - mean(b), paired by item.

    Items are resampled, seeds are not: with several seeds each item counts with its mean over
    them. So the interval is about other questions for the same trained models.

    Resampling n items with replacement is one multinomial draw over the distinct item differences.
    There are few of them (-1, 0, 1 for one seed), so 10,000 resamples are cheap, and the result
    does not depend on the order of the items.

    Args:
        a: `[items]` or `[seeds, items]`, a score per item (True/False, or a share of 1).
        b: the same items in the same order; its number of seeds may differ from a's.
        seed: of the resampling.
        resamples: bootstrap samples; with 10,000 the bounds' sampling error is near 1 % of the width.

    Returns:
        (low, high) on the scale of the scores.

    Raises:
        ValueError: no items, or a and b do not have the same items.
    """
    left, right = _item_means(a, "a"), _item_means(b, "b")
    if left.shape != right.shape:
        raise ValueError(
            f"a has {left.size} items and b {right.size}: give the same items for both"
        )
    # Rounded because means over seeds with equal sums may differ in the last bit.
    values, counts = np.unique(np.round(left - right, 12), return_counts=True)
    shares = counts / counts.sum()
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _CELLS // values.size)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = generator.multinomial(left.size, shares, size=stop - start)
        means[start:stop] = (drawn * values).sum(axis=1) / left.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def resampled_means(
    values: npt.NDArray[np.float64], generator: np.random.Generator, resamples: int
) -> npt.NDArray[np.float64]:
    """Means of samples of the items with replacement `[resamples]`.

    Args:
        values: `[items]`.
        generator: draws the samples.
        resamples: how many.
    """
    means = np.empty(resamples)
    block = max(1, _CELLS // values.size)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = generator.integers(values.size, size=(stop - start, values.size))
        means[start:stop] = values[drawn].mean(axis=1)
    return means


def mean_interval(scores: npt.ArrayLike, seed: int, resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean of scores of any values.

    With differences of two strategies' scores item by item it is the paired interval. `paired_interval` is faster where
    there are few distinct values, and slower where nearly every item has its own.

    Args:
        scores: `[items]`.
        seed: of the resampling.
        resamples: bootstrap samples.

    Returns:
        (low, high) on the scale of the scores.

    Raises:
        ValueError: no items, or not one dimension.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"mean_interval() needs scores [items] with items > 0, not {values.shape}")
    generator = np.random.default_rng(seed)
    means = resampled_means(values, generator, resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def macro_interval(
    correct: npt.ArrayLike, tasks: Sequence[str], seed: int, resamples: int = 10_000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over tasks of each task's accuracy.

    Items are resampled within their task: a task of n items of which a share p is right gives Binomial(n, p)/n. So the
    interval is about other questions of the same tasks, and a task that is all right or all wrong adds no width.

    Args:
        correct: `[items]`, True or 1 where the answer is right.
        tasks: the task of each item `[items]`.
        seed: of the resampling.
        resamples: bootstrap samples.

    Returns:
        (low, high) as shares of 1.

    Raises:
        ValueError: no items, or `tasks` has another length.
    """
    shares = by_task(correct, tasks)
    generator = np.random.default_rng(seed)
    sums = np.zeros(resamples)
    for right, n in shares.values():
        sums += generator.binomial(n, right / n, size=resamples) / n
    low, high = np.quantile(sums / len(shares), [0.025, 0.975])
    return float(low), float(high)


def by_task(correct: npt.ArrayLike, tasks: Sequence[str]) -> dict[str, tuple[int, int]]:
    """By task, in alphabetical order: (number of right items, number of items).

    Raises:
        ValueError: no items, or `tasks` has another length.
    """
    right = np.asarray(correct, dtype=bool)
    if right.ndim != 1 or right.size == 0 or right.size != len(tasks):
        raise ValueError(f"by_task() needs correct, tasks [items], not {right.shape}, {len(tasks)}")
    counts: dict[str, tuple[int, int]] = dict.fromkeys(sorted(set(tasks)), (0, 0))
    for task, one in zip(tasks, right.tolist(), strict=True):
        hits, n = counts[task]
        counts[task] = hits + one, n + 1
    return counts


def mcnemar(a: npt.ArrayLike, b: npt.ArrayLike) -> McNemar:
    """McNemar's exact test: are a and b right equally often?

    If they are, the number of discordant items that a has right is Binomial(discordant, 1/2).

    Args:
        a: `[items]`, True where a is right.
        b: `[items]`, True where b is right, in the same order.

    Returns:
        The two discordant counts and the exact two-sided p-value (1 if nothing is discordant).

    Raises:
        ValueError: no items, more than one dimension, or different items.
    """
    from scipy.stats import binomtest

    left, right = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if left.ndim != 1 or left.size == 0 or left.shape != right.shape:
        raise ValueError(f"mcnemar() needs a, b [items], not {left.shape} and {right.shape}")
    only_a, only_b = int((left & ~right).sum()), int((~left & right).sum())
    discordant = only_a + only_b
    p = float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_a, only_b, p)


def checksum_of_correct(correct: Iterable[bool]) -> str:
    """SHA-256, in hexadecimal, of a string with one character per item: 1 if it is right, else 0."""
    return sha256_of("".join("01"[c] for c in correct)).hexdigest()


def _item_means(scores: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """The items' means over seeds `[items]`, of scores `[items]` or `[seeds, items]`."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 2 and array.shape[0] > 0:
        array = array.mean(axis=0)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} must be [items] or [seeds, items] and not empty, not {np.shape(scores)}"
        )
    return array
