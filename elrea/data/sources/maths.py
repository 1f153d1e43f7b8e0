r"""MATH-Combined, the paper's data: MATH, GSM8K, SVAMP and MathQA as problems with an answer in \boxed{}."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.math import Math
from elrea.data.sources.mathqa import Mathqa
from elrea.data.sources.mix import Mix
from elrea.data.sources.svamp import Svamp


def paper_sizes() -> dict[str, Any]:
    """The four with the paper's sizes (train and test) as caps: what it left out beyond them, it does not say.

    They overlap: a problem of any test is taken out of every train and dev, and counted.
    """
    return {
        "math": Math(overlap="drop", limit_train=7500, limit_test=1000),
        "gsm8k": Gsm8k(overlap="drop", limit_train=7441, limit_test=1000),
        "svamp": Svamp(overlap="drop", limit_train=677, limit_test=280),
        "mathqa": Mathqa(overlap="drop", limit_train=26287, limit_test=998),
    }


@dataclass
class Maths(Mix):
    """A mix of the paper's four; what overlaps is dropped unless `overlap` says "refuse"."""

    sources: dict[str, Any] = field(default_factory=paper_sizes)
    """Name -> a choice of this group; the defaults are the paper's four, and its sizes their caps."""

    name: ClassVar[str] = "maths"
    title: ClassVar[str] = "MATH-Combined:"
