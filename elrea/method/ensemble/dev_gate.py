"""Decides on dev examples in which clusters an expert serves instead of the trunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterDecision:
    """What dev says of one cluster's expert; differences are shares of 1 (correct) or nats per token (loss).

    Attributes:
        examples: Dev examples that are nearest to the cluster, n_c.
        difference: Mean of d_i over them, how much better the expert is than the trunk; 0 without any.
        shrunk: m_c, the same shrunk toward no difference.
        low: Lower bound of m_c.
        serves: Whether it is above 0: the expert answers this cluster's prompts.
    """

    examples: int
    difference: float
    shrunk: float
    low: float
    serves: bool


def decide(
    differences: Sequence[Sequence[float]], shrinkage: float, confidence: float
) -> list[ClusterDecision]:
    """Of each cluster c, whether its expert serves: where a lower bound of its gain over the trunk is above 0.

    d_i is how much better the expert of the nearest cluster answers dev example i than the trunk does. To the n_c
    differences of a cluster, k imaginary ones are added that favour neither, and whose mean square is that of all dev
    examples, v = Σ_i d_i² / n:

        m_c   = Σ_{i in c} d_i / (n_c + k)
        s_c²  = (Σ_{i in c} d_i² + k·v) / (n_c + k) - m_c²
        low_c = m_c - t·s_c / √(n_c + k),   t: the `confidence` quantile of Student's t with n_c + k degrees of freedom

    This is the posterior of a normal mean and variance with the conjugate prior of k examples (normal and scaled
    inverse chi-squared), centred on the trunk: m_c is the mean difference times n_c / (n_c + k), and low_c > 0 says
    P(gain of c > 0 | dev) > confidence. An expert that serves is better than the trunk on the dev examples of its
    cluster, so that on dev the whole is never worse than the trunk. A cluster without dev examples has the trunk.

    Args:
        differences: For each cluster, d_i of the dev examples that are nearest to it.
        shrinkage: k, above 0.
        confidence: From 0.5 to below 1.
    """
    from scipy.stats import t

    everything = [d for each in differences for d in each]
    v = math.fsum(d * d for d in everything) / max(1, len(everything))
    found = []
    for each in differences:
        n, total = len(each), math.fsum(each)
        size = n + shrinkage
        mean = total / size
        square = (math.fsum(d * d for d in each) + shrinkage * v) / size - mean**2
        low = mean - float(t.ppf(confidence, size)) * math.sqrt(max(0.0, square) / size)
        found.append(ClusterDecision(n, total / max(1, n), mean, low, n > 0 and low > 0))
    return found
