"""M and M + Q_base: a single member, the backbone or the base adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import BACKBONE, BASE, AdapterSpec, Setting, Strategy

if TYPE_CHECKING:
    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Single(Strategy):
    """The backbone without adapter, or the base adapter, the reference strategy of all comparisons."""

    member: str = BASE
    """`backbone` or `base`."""
    routed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.member not in (BACKBONE, BASE):
            raise ConfigError(f"member={self.member}: must be {BACKBONE} or {BASE}")

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return {}

    def members(self, routing: Routing) -> list[str]:
        return [self.member]

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), 1)
