"""Straight lines in log n through scores at a few sizes of the training set, and what they say of the full size.

Of candidate k at point p, a training on n_p of N examples, every item i has a score s_kpi. With x_p = log2(n_p / N) the
line through the means, by least squares, has its value at the full size where x = 0. That value is Σ_p w_p s_kp with
weights w that the x alone decide, so it is the mean over items of Σ_p w_p s_kpi: each item has an extrapolated score,
and a difference of two candidates is paired item by item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from elrea.evaluation.statistics import resampled_means

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One candidate's score less another's, at the full size.

    Attributes:
        mean: By the lines.
        low: Lower end of the 95 % interval.
        high: Its upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class Curves:
    """The lines of several candidates.

    Args:
        scores: `[candidates, points, items]`, the same items everywhere; higher or lower may be better.
        shares: `[points]`, each point's training examples as a share of all; a share appears once for each seed.

    Attributes:
        means: `[candidates, points]`.
        full: `[candidates]`, the lines' values at the full size.
        slopes: `[candidates]`, what a doubling of the data adds.
        spread: Standard deviation of a training's mean score around its line, after what all candidates have in common
            at a point is taken off; see `difference`.
        spread_of_items: The part of `spread` that is expected from the items' noise alone.
        freedom: Degrees of freedom of `spread`.

    Raises:
        ValueError: Fewer than two candidates, three points or two different shares, or no items.
    """

    def __init__(self, scores: npt.ArrayLike, shares: npt.ArrayLike) -> None:
        self._scores = np.asarray(scores, dtype=np.float64)
        x = np.log2(np.asarray(shares, dtype=np.float64))
        if self._scores.ndim != 3 or self._scores.shape[1:2] != x.shape or not self._scores.size:
            raise ValueError(
                f"curves need scores [candidates, points, items], not {self._scores.shape}"
            )
        candidates, points, _ = self._scores.shape
        if candidates < 2 or points < 3 or np.ptp(x) == 0:
            raise ValueError("curves need two candidates, three points and two shares")
        inverse = np.linalg.pinv(np.stack([np.ones_like(x), x], axis=1))
        self._weights: Array = inverse[0]
        self.means: Array = self._scores.mean(axis=2)
        self.full: Array = self.means @ inverse[0]
        self.slopes: Array = self.means @ inverse[1]
        self.freedom = (candidates - 1) * (points - 2)
        off_line = np.eye(points) - np.stack([np.ones_like(x), x], axis=1) @ inverse
        residuals = np.einsum("pq,kqi->kpi", off_line, self._scores - self._scores.mean(axis=0))
        items = residuals.shape[2]
        self.spread = float(np.sqrt((residuals.mean(axis=2) ** 2).sum() / self.freedom))
        of_items = residuals.var(axis=2).sum() / max(1, items - 1) / self.freedom
        self.spread_of_items = float(np.sqrt(of_items))

    def difference(self, a: int, b: int, seed: int, resamples: int = 10_000) -> Difference:
        """Candidate a less candidate b at the full size, with a 95 % interval.

        The interval adds two errors. Other items: the items' extrapolated differences are resampled, paired.
        Other trainings, and a curve that is not straight: each training's mean is off its line by σ = `spread`, of
        which σ_items = `spread_of_items` is the items' noise, that is in the first error already. The extrapolation
        multiplies the rest by |w|, and there are two lines. As σ is an estimate from few residuals, it is drawn too:

            σ*² = freedom · σ² / χ²(freedom)
            d*  = mean of resampled items' differences + √2 · |w| · √max(0, σ*² - σ_items²) · N(0, 1)

        A bend that the candidates do not share and that begins beyond the largest share is not in it. σ is taken over
        all candidates, as few trainings tell little of one: if one candidate's trainings scatter ten times as much as
        the others', its interval is too narrow (86 % instead of 95 in a simulation with three seeds).

        Args:
            a: Number of a candidate.
            b: Number of another one.
            seed: Of the draws.
            resamples: Number of draws.
        """
        items: Array = self._weights @ (self._scores[a] - self._scores[b])
        generator = np.random.default_rng(seed)
        means = resampled_means(items, generator, resamples)
        drawn_spread = self.freedom * self.spread**2 / generator.chisquare(self.freedom, resamples)
        beyond = np.sqrt(np.maximum(0, drawn_spread - self.spread_of_items**2))
        off = np.sqrt(2) * np.linalg.norm(self._weights) * beyond
        means += off * generator.standard_normal(resamples)
        low, high = np.quantile(means, [0.025, 0.975])
        return Difference(float(items.mean()), float(low), float(high))
