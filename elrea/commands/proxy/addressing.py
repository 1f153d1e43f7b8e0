"""How `elrea route-proxy` names adapters in a request to an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from elrea.errors import DataError
from elrea.method.ensemble.routing_json import member_alone, scales
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategies.gated import GatedExperts
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.method.ensemble.strategies.steered import Steered

if TYPE_CHECKING:
    from elrea.method.ensemble.ensemble import Route
    from elrea.method.ensemble.strategy import Strategy

Form = Literal["name", "experts", "members"]
"""What a request names: the adapter that answers, the experts' scales (1 for that one), or all members' scales."""


SERVES: dict[Form, str] = {
    "name": "each prompt is answered by one adapter, its nearest expert",
    "experts": "each prompt is answered by one adapter, its nearest expert",
    "members": "each prompt is answered by all members, mixed inside the layers as in MoE Routing (D.1)",
}


def same_as(strategy: Strategy) -> tuple[Form, ...]:
    """The forms whose answers are those of an ensemble with this strategy."""
    if isinstance(strategy, Steered):
        return ("members",) if strategy.soft else ("name", "experts", "members")
    if isinstance(strategy, GatedExperts):
        return ("name", "experts", "members")
    if type(strategy) is MoeRouting:
        return ("members",)
    alone = type(strategy) is Elrea and strategy.top_k == 1 and not strategy.base_share
    return ("name", "experts") if alone else ()


@dataclass(frozen=True)
class Adapters:
    """The adapters that an engine has.

    Attributes:
        form: What a request names.
        loaded: The members that the engine has loaded, in the order of their ids; for scales.
        name: The engine's name of a member, with {} for the member's.
    """

    form: Form
    loaded: Sequence[str] = ()
    name: str = "{}"

    def addressed(self, body: Mapping[str, Any], route: Route) -> dict[str, Any]:
        """The request to the engine, for a request and its prompt's route.

        Raises:
            DataError: No expert answers, and the engine has nothing else: it would answer without any adapter.
        """
        answers = member_alone(route.weights)
        if self.form == "name":
            return {**body, "model": self.name.format(answers)}
        if self.form == "experts" and answers not in self.loaded:
            raise DataError(
                f"{answers} answers this prompt, and the engine has experts alone: load all members, and start the "
                "proxy with --lora members"
            )
        weights = route.weights if self.form == "members" else {answers: 1.0}
        return {**body, "lora": scales(weights, self.loaded)}
