"""Arrow: in every adapted layer, each token takes the experts whose updates stretch it most. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from elrea.errors import ConfigError
from elrea.method.ensemble.strategy import (
    AdapterSpec,
    Layerwise,
    Rated,
    Setting,
    expert_names,
    experts,
)

if TYPE_CHECKING:
    from elrea.method.ensemble.joint import Adapter
    from elrea.method.ensemble.layerwise import Factors
    from elrea.method.routing.weights import Routing

HELD = 2**24
"""Largest number of values that the experts' outputs of a layer may have at once, 64 MB in float32."""


@dataclass(frozen=True)
class Arrow(Rated, Layerwise):
    """Δh = (α/r)·Σ_c λ_c(h)·B_c A_c h, λ(h) = softmax over the k largest |h·p_c| / temperature (Ostapenko et al. 2024).

    p_c is the first right singular vector of B_c A_c, of length 1: the direction of a layer's input that expert c
    changes most. Each layer weighs the experts for every token by itself; the base adapter is no member. The layer is
    PEFT's own (`peft.tuners.lora.arrow`), apart from p_c: PEFT takes 15 steps of a power iteration from a random
    vector, which is not the singular vector yet where the two largest singular values are close, and here it is exact.
    """

    rate: float = 1.0
    """The experts' highest learning rate, as a multiple of training.expert_learning_rate."""
    top_k: int = 3
    """Experts that a token takes; all, if there are fewer."""
    temperature: float = 1.0
    """Divides |h·p_c| before the softmax."""
    routed: ClassVar[bool] = False
    exported: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}: must be at least 1")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature}: must be above 0, and finite")

    @property
    def card(self) -> str:
        return f"Arrow routing: in every layer, a token takes the {self.top_k} experts whose updates stretch it most."

    def adapters(self, setting: Setting) -> dict[str, AdapterSpec]:
        return experts(setting, "cluster", self.rate)

    def members(self, routing: Routing) -> list[str]:
        return expert_names(routing.clusters, "cluster", self.rate)

    def weights(self, routing: Routing) -> Tensor:
        return torch.ones(len(routing.cosines), routing.clusters)

    def check(self, members: Sequence[Adapter | None]) -> None:
        """Rejects members of unequal shape, as PEFT does.

        Raises:
            ConfigError: The first member that differs from the first one.
        """
        shapes = [
            {} if m is None else {n: tuple(t.shape) for n, t in m[0].items()} for m in members
        ]
        for number, shape in enumerate(shapes):
            differing = sorted(set(shape.items()) ^ set(shapes[0].items()))
            if differing or not shape:
                name = differing[0][0] if differing else "it has no adapter"
                raise ConfigError(
                    f"arrow: expert {number} has other layers or another rank than expert 0 ({name}); Arrow compares "
                    "adapters of one shape"
                )

    def gate_of(self, a: Tensor, b: Tensor) -> Tensor | None:
        """p_c of every expert [members, in]."""
        layer = self._layer(a)
        layer.build_prototypes(_named(a), _named(b))
        prototypes: Tensor = layer.prototypes
        return prototypes

    def delta(self, x: Tensor, factors: Factors) -> Tensor:
        a, b = factors.a, factors.b
        layer = self._layer(a)
        layer.register_buffer("prototypes", factors.gate, persistent=False)
        scaled = dict.fromkeys(_named(a), 1.0)  # (α/r) is in b
        # Tokens are independent: some at a time, since PEFT's layer holds every expert's output of each.
        tokens = x.reshape(-1, x.shape[-1]).split(max(1, HELD // (len(b) * b.shape[1])))
        parts = [layer(each, _named(a), _named(b), nn.Identity(), scaled) for each in tokens]
        return torch.cat(parts).view(*x.shape[:-1], -1)

    def _layer(self, a: Tensor) -> Any:
        """PEFT's layer for experts of these A."""
        from peft import ArrowConfig

        config = ArrowConfig(top_k=min(self.top_k, len(a)), router_temperature=self.temperature)
        config.task_adapter_names, config.gks_adapter_names = list(_named(a)), []
        return _exact_arrow()(a.shape[2], config)


def _named(factors: Tensor) -> dict[str, SimpleNamespace]:
    """The members' A or B by name, as PEFT's layer reads them."""
    return {
        f"task_{number}": SimpleNamespace(weight=factor) for number, factor in enumerate(factors)
    }


@cache
def _exact_arrow() -> type:
    """PEFT's layer with exact prototypes; importing PEFT takes seconds."""
    from peft.tuners.lora.arrow import ArrowLoraLinearLayer

    class ExactArrow(ArrowLoraLinearLayer):
        def top_right_singular_vec_from_BA(
            self,
            A: Tensor,
            B: Tensor,
            iters: int = 15,
            eps: float = 1e-8,
        ) -> Tensor:
            q, upper = torch.linalg.qr(A.float().T)  # BA = (B·upperᵀ)·qᵀ
            return q @ torch.linalg.svd(B.float() @ upper.T, full_matrices=False).Vh[0]

    return ExactArrow
