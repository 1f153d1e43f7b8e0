"""Gradients of the adapter's parameters, one per example, from one batched pass (5.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from elrea.adapters.loss import logits_at

PREFIX_PARTS = ("lora_A", "lora_B")


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one LoRA matrix stands in the flat gradient.

    Attributes:
        name: The parameter's name as PEFT saves it.
        module: The linear layer that applies it.
        start: First column.
        size: Number of columns, out x in.
    """

    name: str
    module: nn.Module
    start: int
    size: int


class PerExampleGradients:
    """Reads per-example gradients off the linear layers `lora_A` and `lora_B` of a PEFT model.

    For y = W x over a sequence, an example's gradient is the sum over its tokens of dy xᵀ: one einsum of what the
    layer was given and of what flows back into it. Nothing else of the adapter is differentiated, so that the cost
    is one forward and one backward pass of the batch.

    Args:
        model: A PEFT model in eval mode; its parameters stop requiring gradients, its embeddings start to.

    Attributes:
        slots: The matrices in the order of the flat gradient (sorted by name).
        size: |θ_Q|, the length of a flat gradient.
    """

    def __init__(self, model: PeftModel) -> None:
        self.model = model.eval()
        found = {
            name.replace(".default", "") + ".weight": module
            for name, module in model.named_modules()
            if name.endswith(".default") and name.split(".")[-2] in PREFIX_PARTS
        }
        self.slots: list[Slot] = []
        self.size = 0
        for name, module in sorted(found.items()):
            size = module.weight.numel()
            self.slots.append(Slot(name, module, self.size, size))
            self.size += size

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """Lays tensors by parameter name out as one vector [|θ|] in the gradient's order."""
        return torch.cat([tensors[slot.name].flatten().float() for slot in self.slots])

    def __call__(self, ids: Tensor, mask: Tensor, carries_loss: Tensor) -> Tensor:
        """Takes the gradient of each example's mean token loss.

        Args:
            ids: Token ids [b, t], padded on the right.
            mask: True on tokens, False on padding [b, t].
            carries_loss: True on the tokens whose loss counts [b, t]; the first one's never does.

        Returns:
            Flat gradients [b, |θ|] in float32. What an example's row holds does not depend on the others.
        """
        out = torch.zeros(len(ids), self.size, dtype=torch.float32, device=ids.device)
        # Without trainable parameters autograd computes no summed weight gradients beside ours;
        # the embeddings' output then has to start the graph.
        wanted = [p for p in self.model.parameters() if p.requires_grad]
        handles = [s.module.register_forward_hook(self._reader(s, out)) for s in self.slots]
        embeddings = cast(PreTrainedModel, self.model).get_input_embeddings()
        handles.append(embeddings.register_forward_hook(lambda _m, _i, y: y.requires_grad_(True)))
        try:
            for p in wanted:
                p.requires_grad_(False)
            prompt_loss(self.model, ids, mask, carries_loss).backward()
        finally:
            for handle in handles:
                handle.remove()
            for p in wanted:
                p.requires_grad_(True)
        return out

    def _reader(self, slot: Slot, out: Tensor) -> Callable[..., None]:
        columns = slice(slot.start, slot.start + slot.size)

        def read(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                return
            given = inputs[0].detach()

            def write(back: Tensor) -> None:
                product = torch.einsum("bto,bti->boi", back.float(), given.float())
                out[:, columns] += product.flatten(1)

            output.register_hook(write)

        return read


def prompt_loss(model: PeftModel, ids: Tensor, mask: Tensor, carries_loss: Tensor) -> Tensor:
    """Sum over examples of the mean next-token loss over each example's own tokens, in nats.

    The mean is the training loss's scale, which Adam's moments have; the sum makes an example's
    gradient independent of its batch.
    """
    counted = (carries_loss & mask)[:, 1:]
    tokens = counted.sum(1, keepdim=True).clamp(min=1).expand_as(counted)
    # One column shorter than ids: the place of a token is where it is predicted from.
    before = torch.cat([counted, torch.zeros_like(counted[:, :1])], dim=1)
    places = before.flatten().nonzero()[:, 0]
    losses = cross_entropy(
        logits_at(cast(PreTrainedModel, model), ids, places).float(),
        ids[:, 1:][counted],
        reduction="none",
    )
    return (losses / tokens[counted]).sum()
