r"""MATH-Combined, the paper's mathematical data: MATH, GSM8K, SVAMP and MathQA with each answer in \boxed{}."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.math import Math
from elrea.data.sources.mathqa import Mathqa
from elrea.data.sources.mix import Mix
from elrea.data.sources.svamp import Svamp


def paper_sizes() -> dict[str, Any]:
    """The four sources, limited to the paper's numbers of training and test examples.

    The paper does not say which examples it left out. The sources overlap: a problem of any test is dropped from every
    train and dev, and counted.
    """
    return {
        "math": Math(overlap="drop", limit_train=7500, limit_test=1000),
        "gsm8k": Gsm8k(overlap="drop", limit_train=7441, limit_test=1000),
        "svamp": Svamp(overlap="drop", limit_train=677, limit_test=280),
        "mathqa": Mathqa(overlap="drop", limit_train=26287, limit_test=998),
    }


@dataclass
class Maths(Mix):
    """A mix of the paper's four sources. Overlap is dropped unless `overlap` is "refuse"."""

    sources: dict[str, Any] = field(default_factory=paper_sizes)
    """Name -> a choice of this group; the default is the paper's four, limited to the paper's sizes."""

    name: ClassVar[str] = "maths"
    title: ClassVar[str] = "MATH-Combined:"
