"""Mixes members inside the adapted layers: one pass per prompt, as with a single adapter (D.1, D.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from elrea.method.ensemble.joint import Adapter, chunk_of, stacked
from elrea.method.ensemble.prefix import read
from elrea.models.loss import logits_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from elrea.method.ensemble.prefix import Prompt


@dataclass(frozen=True)
class Factors:
    """The factors of one adapted layer, from which a strategy computes the addition to the layer's output.

    Attributes:
        a: A of every member [members, r, in].
        b: (α/r)·B of every member [members, out, r].
        weights: Weights of the members for each row [rows, members].
        gate: The layer's gate [members, in], if one was trained.
    """

    a: Tensor
    b: Tensor
    weights: Tensor
    gate: Tensor | None = None


Delta = Callable[[Tensor, Factors], Tensor]
"""(input of the layer [rows, t, in], its factors) -> the addition to its output [rows, t, out]."""


class Mixing(Protocol):
    """What a layerwise model asks of its strategy (`elrea.method.ensemble.strategy.Layerwise`)."""

    def check(self, members: Sequence[Adapter | None]) -> None: ...

    def gate_of(self, a: Tensor, b: Tensor) -> Tensor | None: ...

    def delta(self, x: Tensor, factors: Factors) -> Tensor: ...


class LayerwiseModel:
    """A bare backbone whose adapted layers mix several adapters, row by row.

    Args:
        model: The backbone without PEFT around it.
        members: Adapters in the order of the weights' columns; None is the backbone without adapter.
        delta: Computes the addition to a layer's output.
        gates: Gates of the adapted layers by name, if the strategy has any.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        members: Sequence[Adapter | None],
        delta: Delta,
        gates: dict[str, Tensor] | None = None,
    ) -> None:
        model.eval()
        self.model, self.delta, self.count = model, delta, len(members)
        self.layers = stacked(model, members)
        device = next(model.parameters()).device
        self.gates = {name: gate.to(device) for name, gate in (gates or {}).items()}

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        members: Sequence[Adapter | None],
        strategy: Mixing,
        gates: dict[str, Tensor] | None = None,
    ) -> LayerwiseModel:
        """The model of a strategy, with the gates that follow from its members; arguments as for the class.

        Raises:
            ConfigError: The strategy cannot mix these members.
        """
        strategy.check(members)
        made = cls(model, members, strategy.delta, gates)
        for name, (_, a, b) in made.layers.items():
            if (gate := strategy.gate_of(a, b)) is not None:
                made.gates[name] = gate
        return made

    @contextmanager
    def rows(self, weights: Tensor) -> Iterator[PreTrainedModel]:
        """Adds the mixed adapters to the backbone until the context ends.

        Args:
            weights: Weights of the members for each row of a batch [rows, members].

        Yields:
            The model.
        """
        handles = []
        try:
            for name, (module, a, b) in self.layers.items():
                factors = Factors(a, b, weights.to(a), self.gates.get(name))
                handles.append(module.register_forward_hook(self._adder(factors)))
            yield self.model
        finally:
            for handle in handles:
                handle.remove()

    def chunk(self, rows: int, longest: int) -> int | None:
        """Tokens of each row that `generate` should read in one pass; None: all of them."""
        return chunk_of(self.model, rows, longest)

    def _adder(self, factors: Factors) -> Callable[..., Tensor]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].to(factors.a.dtype)
            # Some layers get [rows·t, in]: OPT's, and a mixture's shared experts.
            added = self.delta(x.reshape(len(factors.weights), -1, x.shape[-1]), factors)
            return output + added.view(output.shape).to(output.dtype)

        return add

    @torch.inference_mode()
    def logits(self, ids: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        """Logits at some positions [n, vocabulary] in float32.

        Args:
            ids: Token ids [b, t], padded on the right.
            places: Positions in `ids.flatten()` [n].
            weights: Weights of the members for each row [b, members].
        """
        with self.rows(weights):
            return logits_at(self.model, ids, places).float()

    @torch.inference_mode()
    def logits_after(
        self, prompts: Sequence[Prompt], places: int, pad_id: int, weights: Tensor
    ) -> Tensor:
        """Logits behind prompts that are read once, and behind their continuations' tokens [n, vocabulary] in float32.

        Args:
            prompts: The prompts, which number the logit vectors.
            places: How many vectors there are, n.
            pad_id: Token id of padding.
            weights: Weights of the members for each prompt [b, members].
        """
        out = None
        for _, of, logits in read(
            self.model, lambda rows: self.rows(weights[rows]), prompts, pad_id
        ):
            if out is None:
                out = logits.new_empty(places, logits.shape[-1])
            out[of] = logits
        assert out is not None, "there is a prompt"
        return out


def mixed_outputs(x: Tensor, factors: Factors, shares: Tensor) -> Tensor:
    """(α/r)·Σ_m λ_m B_m A_m x: the weighted sum of the members' outputs of a layer.

    It is computed as one adapter of rank members·r, with the members' factors concatenated.

    Args:
        x: Inputs of the layer [rows, t, in].
        factors: Factors of the layer.
        shares: λ [rows, 1 or t, members].

    Returns:
        [rows, t, out].
    """
    low = (x @ factors.a.flatten(0, 1).T).unflatten(-1, factors.a.shape[:2]) * shares.unsqueeze(-1)
    return low.flatten(-2) @ factors.b.transpose(1, 2).flatten(0, 1)
