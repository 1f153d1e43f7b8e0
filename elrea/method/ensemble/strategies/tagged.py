"""One adapter for all examples; a tag in the prompt says which cluster the example is in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from elrea.errors import ConfigError
from elrea.method.ensemble.strategies.matched import Matched
from elrea.method.ensemble.strategy import AdapterSpec, ByCluster, Setting, Tagging


@dataclass(frozen=True)
class Tagged(Matched, Tagging):
    """`Matched` on prompts "[c] " + x_instr, where c is the number of the example's cluster.

    A test prompt gets argmax_c cos_c (5.8), by the run's routing of the prompt without a tag. What experts know by
    being trained apart, this adapter can learn from a few tokens.
    """

    rank_times_clusters: bool = True
    """Use rank C·r, with as many parameters as all experts together."""
    tag: str = "[{}] "
    """What is written before the instruction; {} is the cluster's number, from 0."""
    names: ClassVar[tuple[str, str]] = ("tagged", "tagged-narrow")
    by_cluster: ClassVar[ByCluster | None] = "tag"
    routed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tag.count("{}") != 1 or self.tag.count("{") + self.tag.count("}") != 2:
            raise ConfigError(f"tag={self.tag!r}: must have {{}} once, for the cluster's number")

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        made = super().adapters(setting)
        return {name: replace(spec, tag=self.tag) for name, spec in made.items()}
