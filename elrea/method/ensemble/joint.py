"""One forward pass for all members: the backbone's matrices meet the stacked rows once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from elrea.errors import BackboneError
from elrea.method.ensemble.cpu_linear import few_rows
from elrea.models.lora import Lora
from elrea.models.loss import logits_at

Adapter = tuple[dict[str, Tensor], Lora]
"""An adapter's tensors by PEFT's names, and its settings."""

_PREFIX = "base_model.model."

TOKENS = 2048
"""Tokens of all rows, at most, that a prompt's pass takes at a time on a CPU: more of them leave its caches, and what
they allocate goes back to the system after every layer."""


class JointModel:
    """A bare backbone with several LoRA adapters beside every adapted layer.

    An adapted layer adds (α/r)·B_m A_m x to the rows of member m by two batched products.

    Args:
        model: The backbone without PEFT around it.
        members: Adapters in the order of the members; None stands for the backbone alone. Ranks and settings
            may differ: smaller ranks are filled up with zeros.
    """

    def __init__(self, model: PreTrainedModel, members: Sequence[Adapter | None]) -> None:
        model.eval()
        self.model = model
        self.count = len(members)
        # As the products want them: a step of decoding is hundreds of products of one token, and each copy counts.
        self._layers = [
            (module, a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous())
            for module, a, b in stacked(model, members).values()
        ]

    @contextmanager
    def rows(self, member: Tensor | None = None) -> Iterator[PreTrainedModel]:
        """The backbone as it is with the adapters, for anything that calls it: `generate`, say.

        Args:
            member: Whose each row of a batch is [rows]; None: all members have as many, member 0's come first.

        Yields:
            The model; its layers are themselves again afterwards.
        """
        handles = []
        try:
            for module, a, b in self._layers:
                if member is not None:
                    a, b = a[member], b[member]
                handles.append(module.register_forward_hook(self._adder(a, b)))
            with few_rows(self.model):
                yield self.model
        finally:
            for handle in handles:
                handle.remove()

    def chunk(self, rows: int, longest: int) -> int | None:
        """Tokens of each row that `generate` should read at a time; None: all of them."""
        return chunk_of(self.model, rows, longest)

    @staticmethod
    def _adder(a: Tensor, b: Tensor) -> Callable[..., Tensor]:
        """Adds (α/r)·B A x, for A [members or rows, in, r] and (α/r)·B [members or rows, r, out]."""

        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            low = torch.bmm(inputs[0].to(a.dtype).reshape(a.shape[0], -1, a.shape[1]), a)
            if output.dtype != b.dtype:
                return output + torch.bmm(low, b).view(output.shape).to(output.dtype)
            own = output.reshape(b.shape[0], -1, b.shape[2])
            if own.is_contiguous() and not torch.is_grad_enabled():
                # The layer's own output is fresh: nobody else has it.
                return own.baddbmm_(low, b).view(output.shape)
            return torch.baddbmm(own, low, b).view(output.shape)

        return add

    @torch.inference_mode()
    def logits(self, ids: Tensor, places: Tensor) -> Tensor:
        """Logits of every member at chosen places.

        Args:
            ids: Token ids [b, t], padded on the right (causal attention never looks there).
            places: Positions in `ids.flatten()`, [n].

        Returns:
            [members, n, vocabulary] in float32.
        """
        stacked = torch.arange(self.count, device=ids.device)[:, None] * ids.numel() + places
        with self.rows():
            out = logits_at(self.model, ids.repeat(self.count, 1), stacked.flatten())
        return out.float().view(self.count, len(places), -1)


def chunk_of(model: PreTrainedModel, rows: int, longest: int) -> int | None:
    """Tokens of each row that `generate` should read at a time; None: all of them, as a GPU does best, and as a
    backbone must that keeps no keys and values (Mamba's state, say, comes by another name)."""
    caches = "past_key_values" in signature(model.forward).parameters
    if model.device.type != "cpu" or rows * longest <= TOKENS or not caches:
        return None
    return max(8, TOKENS // rows)


def stacked(
    model: PreTrainedModel, members: Sequence[Adapter | None]
) -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Every adapted layer by name, with A [members, r, in] and (α/r)·B [members, out, r] on its device.

    Raises:
        BackboneError: An adapter changes a layer that the backbone lacks.
    """
    device = next(model.parameters()).device
    modules = dict(model.named_modules())
    names = sorted(
        {name.rsplit(".", 2)[0] for adapter in members if adapter for name in adapter[0]}
    )
    layers = {}
    for name in names:
        module = modules.get(name.removeprefix(_PREFIX))
        if module is None:
            raise BackboneError(f"the adapters change a layer {name!r} that this backbone lacks")
        try:
            a, b = _stack(name, members)
        except RuntimeError as error:
            raise BackboneError(f"the members' shapes of layer {name!r} differ: {error}") from error
        if (b.shape[1], a.shape[2]) != (wanted := _shape(module)):
            raise BackboneError(
                f"an adapter of layer {name!r} is for {b.shape[1]} x {a.shape[2]}, but the backbone has "
                f"{wanted[0]} x {wanted[1]} there"
            )
        layers[name] = (module, a.to(device), b.to(device))
    return layers


def _shape(module: Any) -> tuple[int, int]:
    """(out, in) of a linear layer, quantised or not, or of GPT-2's Conv1D."""
    if hasattr(module, "in_features"):
        return int(module.out_features), int(module.in_features)
    return int(module.weight.shape[1]), int(module.weight.shape[0])


def _stack(name: str, members: Sequence[Adapter | None]) -> tuple[Tensor, Tensor]:
    """A [members, r, in] and (α/r)·B [members, out, r] of one layer; zeros where a member leaves it alone."""
    present = [adapter for adapter in members if adapter and f"{name}.lora_A.weight" in adapter[0]]
    rank = max(lora.r for _, lora in present)
    some = present[0][0]
    wide, out = some[f"{name}.lora_A.weight"].shape[1], some[f"{name}.lora_B.weight"].shape[0]
    a, b = torch.zeros(len(members), rank, wide), torch.zeros(len(members), out, rank)
    for m, adapter in enumerate(members):
        if adapter and f"{name}.lora_A.weight" in adapter[0]:
            tensors, lora = adapter
            a[m, : lora.r] = tensors[f"{name}.lora_A.weight"].float()
            b[m, :, : lora.r] = tensors[f"{name}.lora_B.weight"].float() * lora.scale
    return a, b
