"""What is scored, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from elrea.errors import ConfigError
from elrea.evaluation.statistics import MOST_RESAMPLES


@dataclass(frozen=True)
class Evaluation:
    """Which strategies are scored in one go, and how sure the figures are."""

    strategies: list[str] = field(
        default_factory=lambda: ["backbone", "base", "elrea", "elrea_top1", "uniform"]
    )
    """Names of files in conf/ensemble, or `all`; base and the one that `ensemble=` names are added."""
    settings: dict[str, dict[str, Any]] | None = None
    """Other settings than their files' of strategies that are scored, be one named by `ensemble=` too (what is typed as
    `ensemble.<field>` may not stand here as well): {compute_matched: {rate: 0.7}}. `base` and `backbone` have none."""
    split: Literal["test", "dev"] = "test"
    """Which examples are scored. Choose settings on dev, and look at test once."""
    by: Literal["auto", "likelihood", "generation"] = "auto"
    """What is judged. `likelihood`: the likeliest choice, or whether greedy decoding would write the response word for
    word; one pass tells. `generation`: the answer that is read out of a text which each strategy writes with its own
    mix, as the paper scores; there is no loss then. `auto`: texts where an example names a judge (`maths`, `answer`,
    `letter`), likelihood elsewhere, and the loss of all."""
    mean_logits: bool = False
    """Where likelihood judges, divide each mix by the sum of its weights: 1 + w_base in (5.10), C + 1 if all weigh 1.
    What greedy decoding writes stays as it is; the loss can then be compared with one adapter's, which a sum, sharper
    than its members, cannot. Choices of several tokens may be ranked otherwise than by the sum."""
    max_new_tokens: int = 256
    """Tokens of a written text at most, for which a prompt has to leave room. The paper's are 848 (maths, BBH) and 248
    (MMLU)."""
    stop: list[str] = field(default_factory=list)
    """Texts before which a written text ends, e.g. ["Q:"] for a backbone that goes on with a question of its own."""
    batch_size: int = 16
    """Prompts in one joint pass; each takes a row per member. Changes nothing but speed and memory."""
    resamples: int = 2_000
    """Bootstrap resamples behind each paired 95 % interval."""

    def __post_init__(self) -> None:
        """Refuse numbers that score nothing, by their names."""
        for name in ("batch_size", "resamples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name}={getattr(self, name)}: must be at least 1")
        if self.resamples > MOST_RESAMPLES:
            raise ConfigError(
                f"evaluation.resamples={self.resamples}: must be at most {MOST_RESAMPLES}"
            )
        if not all(self.stop):
            raise ConfigError("evaluation.stop: an empty text would end every text at once")
