"""The settings of the evaluation: which strategies and examples are scored, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from elrea.errors import ConfigError
from elrea.evaluation.statistics import MOST_RESAMPLES


@dataclass(frozen=True)
class Evaluation:
    """Which strategies are scored, on which examples, and with which statistics."""

    strategies: list[str] = field(
        default_factory=lambda: ["backbone", "base", "elrea", "elrea_top1", "uniform"]
    )
    """Names of files in conf/ensemble, or `all`. `base` and the strategy that `ensemble=` names are always added."""
    settings: dict[str, dict[str, Any]] | None = None
    """Settings of scored strategies that replace those in their files: {compute_matched: {rate: 0.7}}. The strategy
    that `ensemble=` names may be included, but not a field that is also set as `ensemble.<field>`. `base` and
    `backbone` have no settings."""
    rate: float | None = None
    """The `rate` (and `trunk_rate`) of every scored strategy that has one, in place of its file's, which is tuned for
    the built-in model: 1 trains controls at the rates of base adapter and experts. A rate in `settings`, or typed as
    `ensemble.rate`, goes before."""
    split: Literal["test", "dev"] = "test"
    """Which examples are scored. Choose settings on dev, and use test once."""
    by: Literal["auto", "likelihood", "generation"] = "auto"
    """How answers are scored. `likelihood`: by the choice with the highest likelihood, or by whether greedy decoding
    would produce the response exactly; this needs one forward pass. `generation`: by the answer read from a text that
    each strategy generates with its own mixture, as in the paper; no loss is computed. `auto`: by generation if an
    example names a judge, by likelihood otherwise, and the loss of all examples."""
    mean_logits: bool = False
    """When scoring by likelihood, divide each mixture of logits by the sum of its weights: 1 + w_base in (5.10), or
    C + 1 if all weights are 1. Greedy decoding does not change. The loss becomes comparable with that of one adapter; a
    sum of logits is sharper than each member. The ranking of choices with several tokens may differ from the sum's."""
    max_new_tokens: int = 256
    """Maximum number of tokens of a generated text; a prompt has to leave room for them. The paper uses 848 (maths,
    BBH) and 248 (MMLU)."""
    stop: list[str] = field(default_factory=list)
    """A generated text ends before any of these, e.g. ["Q:"] for a backbone that continues with a new question."""
    think: Literal["strip", "keep"] = "strip"
    """What becomes of think blocks (`<think>...</think>` and the like) before a text is judged. `strip`: they are left
    out of the text and of the response, and a block that never ends counts as no answer. `keep`: all is judged."""
    batch_size: int = 16
    """Prompts per forward pass; each takes one row per member. Changes speed and memory only."""
    resamples: int = 2_000
    """Bootstrap resamples for each paired 95 % interval."""

    def __post_init__(self) -> None:
        """Refuses values that are out of range, by their keys."""
        for name in ("batch_size", "resamples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name}={getattr(self, name)}: must be at least 1")
        if self.resamples > MOST_RESAMPLES:
            raise ConfigError(
                f"evaluation.resamples={self.resamples}: must be at most {MOST_RESAMPLES}"
            )
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ConfigError(f"evaluation.rate={self.rate}: must be above 0, and finite, or null")
        if not all(self.stop):
            raise ConfigError("evaluation.stop: an empty text would end every text at once")
