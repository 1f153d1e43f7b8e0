"""All members in one forward pass: the rows of all members are stacked, so that each weight matrix is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elrea.errors import BackboneError
from elrea.method.ensemble.cpu_linear import swapped_products
from elrea.method.ensemble.prefix import most_shared, read
from elrea.method.ensemble.probes import chunks
from elrea.models.adapter_shape import Lora
from elrea.models.loss import logits_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from elrea.method.ensemble.prefix import Prompt

Adapter = tuple[dict[str, Tensor], Lora]
"""An adapter's tensors by their PEFT names, and its settings."""

_PREFIX = "base_model.model."

TOKENS = 2048
"""Largest number of tokens (of all rows together) in one pass over prompts on a CPU. More tokens do not fit into its
caches, and their memory is returned to the system after every layer."""


class JointModel:
    """A bare backbone with several LoRA adapters beside every adapted layer.

    An adapted layer adds (α/r)·B_m A_m x to the rows of member m by two batched products.

    Args:
        model: The backbone without PEFT around it.
        members: Adapters in the order of the members; None is the backbone without adapter. Ranks and settings may
            differ: smaller ranks are padded with zeros.
    """

    def __init__(self, model: PreTrainedModel, members: Sequence[Adapter | None]) -> None:
        model.eval()
        self.model = model
        self.count = len(members)
        # Transposed once: a decoding step has hundreds of products of one token, and each copy would count.
        self._layers = [
            (module, a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous())
            for module, a, b in stacked(model, members).values()
        ]

    @contextmanager
    def rows(self, member: Tensor | None = None) -> Iterator[PreTrainedModel]:
        """Adds the adapters to the backbone until the context ends.

        Args:
            member: Member of each row of a batch [rows]; None: all members have equally many rows, those of member 0
                first.

        Yields:
            The model, for any caller, such as `generate`.
        """
        layers = self._layers
        if member is not None:
            layers = [(module, a[member], b[member]) for module, a, b in layers]
        adders = ((module, self._adder(a, b)) for module, a, b in layers)
        with _hooked(adders), swapped_products(self.model):
            yield self.model

    @contextmanager
    def blocks(self, member: Sequence[int]) -> Iterator[PreTrainedModel]:
        """As `rows`, for many tokens of rows that are sorted by member: a member's factors are read once for all.

        Args:
            member: Member of each row of a batch [rows].
        """
        sizes = {m: member.count(m) for m in dict.fromkeys(member)}
        if len(set(sizes.values())) > 1:
            adders = [(module, self._block_adder(a, b, sizes)) for module, a, b in self._layers]
        else:
            # On the device once: a list would be copied there for every layer.
            whole = len(sizes) == self.count
            chosen = slice(None) if whole else torch.tensor(list(sizes), device=self.model.device)
            adders = [(module, self._adder(a[chosen], b[chosen])) for module, a, b in self._layers]
        with _hooked(adders):
            yield self.model

    def chunk(self, rows: int, longest: int) -> int | None:
        """Tokens of each row that `generate` should read in one pass; None: all of them."""
        return chunk_of(self.model, rows, longest)

    @staticmethod
    def _adder(a: Tensor, b: Tensor) -> Callable[..., Tensor]:
        """A forward hook that adds (α/r)·B A x, for Aᵀ [members or rows, in, r] and (α/r)·Bᵀ [same, r, out]."""

        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            low = torch.bmm(inputs[0].to(a.dtype).reshape(a.shape[0], -1, a.shape[1]), a)
            if output.dtype != b.dtype:
                return output + torch.bmm(low, b).view(output.shape).to(output.dtype)
            grouped = output.reshape(b.shape[0], -1, b.shape[2])
            if grouped.is_contiguous() and not torch.is_grad_enabled():
                # In place: the layer has just made its output, and nothing else refers to it.
                return grouped.baddbmm_(low, b).view(output.shape)
            return torch.baddbmm(grouped, low, b).view(output.shape)

        return add

    @staticmethod
    def _block_adder(a: Tensor, b: Tensor, sizes: Mapping[int, int]) -> Callable[..., Tensor]:
        """The same hook for sorted rows, `sizes[m]` of member m: Aᵀ [members, in, r], (α/r)·Bᵀ [members, r, out]."""

        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].to(a.dtype).reshape(-1, a.shape[1])
            each = len(x) // sum(sizes.values())
            parts = x.split([rows * each for rows in sizes.values()])
            added = [part @ a[m] @ b[m] for m, part in zip(sizes, parts, strict=True)]
            return output + torch.cat(added).view(output.shape).to(output.dtype)

        return add

    @torch.inference_mode()
    def logits(self, ids: Tensor, places: Tensor, used: Tensor | None = None) -> Tensor:
        """Logits of every member at some positions.

        Args:
            ids: Token ids [b, t], padded on the right (causal attention never looks there).
            places: Positions in `ids.flatten()` [n].
            used: Which members each row needs [b, members]; None: all. The logits of the others are 0, and are not
                computed.

        Returns:
            [members, n, vocabulary] in float32.
        """
        if used is not None and not used.all():
            return self._some(ids, places, used)
        shifted = torch.arange(self.count, device=ids.device)[:, None] * ids.numel() + places
        with self.rows():
            out = logits_at(self.model, ids.repeat(self.count, 1), shifted.flatten())
        return out.float().view(self.count, len(places), -1)

    def _some(self, ids: Tensor, places: Tensor, used: Tensor) -> Tensor:
        """The logits of some members alone, and 0 for the others."""
        member, row = pairs_of(used)
        length = ids.shape[1]
        number = used.T.new_full(
            used.T.shape, -1, dtype=torch.long
        )  # of each member's row in the pass
        number[member, row] = torch.arange(len(row))
        of_place = number[:, (places // length).cpu()]
        found = of_place >= 0
        flat = (of_place * length + (places % length).cpu())[found]
        with self.blocks(member.tolist()):
            logits = logits_at(self.model, ids[row.to(ids.device)], flat.to(ids.device)).float()
        out = logits.new_zeros(self.count, len(places), logits.shape[-1])
        out[found.to(out.device)] = logits
        return out

    @torch.inference_mode()
    def logits_after(
        self, prompts: Sequence[Prompt], places: int, pad_id: int, used: Tensor | None = None
    ) -> Tensor:
        """Logits of every member behind prompts that are read once, and behind their continuations' tokens.

        Args:
            prompts: The prompts, which number the logit vectors.
            places: How many vectors there are, n.
            pad_id: Token id of padding.
            used: Which members each prompt needs [b, members], as in `logits`; None: all.

        Returns:
            [members, n, vocabulary] in float32.
        """
        whole = torch.ones(len(prompts), self.count, dtype=torch.bool)
        member, number = (index.tolist() for index in pairs_of(whole if used is None else used))
        out = None
        passes = read(
            self.model, lambda rows: self.blocks([member[row] for row in rows]),
            [prompts[i] for i in number], pad_id, member,
        )  # fmt: skip
        for rows, of, logits in passes:
            if out is None:
                out = logits.new_zeros(self.count, places, logits.shape[-1])
            out[[member[row] for row in rows], of] = logits
        assert out is not None, "there is a prompt"
        return out


@contextmanager
def _hooked(adders: Iterable[tuple[nn.Module, Callable[..., Tensor]]]) -> Iterator[None]:
    """Calls a function on the output of each module until the context ends."""
    handles = []
    try:
        for module, add in adders:
            handles.append(module.register_forward_hook(add))
        yield
    finally:
        for handle in handles:
            handle.remove()


def pairs_of(used: Tensor) -> tuple[Tensor, Tensor]:
    """Member and row of every pair that is used [b, members], sorted by member; a row without any gets the first."""
    used = used.cpu().clone()
    used[:, 0] |= ~used.any(dim=1)
    member, row = used.T.nonzero(as_tuple=True)
    return member, row


def chunk_of(model: PreTrainedModel, rows: int, longest: int) -> int | None:
    """Tokens of each row that `generate` should read in one pass, for `rows` rows of at most `longest` tokens.

    None means all of them: on a GPU, where this is fastest, for a backbone that cannot go on from a part of a prompt
    (such as Mamba and Jamba), and where the first keys would not fit the last ones (`most_shared`).
    """
    if model.device.type != "cpu" or rows * longest <= TOKENS:
        return None
    if longest > most_shared(model) or not chunks(model):
        return None
    return max(8, TOKENS // rows)


def stacked(
    model: PreTrainedModel, members: Sequence[Adapter | None]
) -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Every adapted layer by name: the module, A [members, r, in] and (α/r)·B [members, out, r], on its device.

    Raises:
        BackboneError: An adapter is for a layer that the backbone lacks, or that has another shape there.
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
            raise BackboneError(f"the adapters are for a layer {name!r} that this backbone lacks")
        try:
            a, b = _stack(name, members)
        except RuntimeError as error:
            raise BackboneError(f"the members' shapes of layer {name!r} differ: {error}") from error
        if (b.shape[1], a.shape[2]) != (shape := _shape(module)):
            raise BackboneError(
                f"an adapter of layer {name!r} is for {b.shape[1]} x {a.shape[2]}, but the backbone has "
                f"{shape[0]} x {shape[1]} there"
            )
        layers[name] = (module, a.to(device), b.to(device))
    return layers


def _shape(module: Any) -> tuple[int, int]:
    """(out, in) of a linear layer, quantised or not, or of GPT-2's Conv1D."""
    if hasattr(module, "in_features"):
        return int(module.out_features), int(module.in_features)
    return int(module.weight.shape[1]), int(module.weight.shape[0])


def _stack(name: str, members: Sequence[Adapter | None]) -> tuple[Tensor, Tensor]:
    """A [members, r, in] and (α/r)·B [members, out, r] of one layer; zeros for a member that does not adapt it."""
    present = [adapter for adapter in members if adapter and f"{name}.lora_A.weight" in adapter[0]]
    rank = max(lora.r for _, lora in present)
    first = present[0][0]
    inputs = first[f"{name}.lora_A.weight"].shape[1]
    outputs = first[f"{name}.lora_B.weight"].shape[0]
    a, b = torch.zeros(len(members), rank, inputs), torch.zeros(len(members), outputs, rank)
    for m, adapter in enumerate(members):
        if adapter and f"{name}.lora_A.weight" in adapter[0]:
            tensors, lora = adapter
            a[m, : lora.r] = tensors[f"{name}.lora_A.weight"].float()
            b[m, :, : lora.r] = tensors[f"{name}.lora_B.weight"].float() * lora.scale
    return a, b
