"""Cross-entropy through the output head in chunks of tokens, so that no copy of all logits is ever held.

A chunk's logits, its losses and the gradient of each loss with respect to the token's hidden state are computed
together, in the forward pass; then its logits are dropped. The backward pass only scales these gradients, which are as
small as the hidden states. The head is frozen: it gets no gradient.

`linear_cross_entropy` of torch 2.13 is not used: on a CPU it takes 2.7 times as long as all logits at once (4 times for
losses of single tokens, for which it computes the logits twice), and it knows no soft cap.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENTRIES, ROWS = {"cpu": 2**23}, 128
"""By device: most logits in one chunk, but at least those of so many tokens: with fewer a product reads the head's
weights more often than it uses them. More are no faster on a CPU."""
MORE_ENTRIES, MORE_ROWS = 2**26, 256
"""The same on other devices, where a product with few rows leaves most of the device idle."""
COPIES = 4
"""Copies of a chunk's logits at the peak: themselves, log p, and the gradients of both."""

log = logging.getLogger(__name__)


class Form(NamedTuple):
    """What a model does to the logits after its head: cap · tanh(scale · x / cap), or scale · x without a cap."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


class Selected(NamedTuple):
    """Hidden states before the head [n, width], and what the model made of the probe in place of the head's output."""

    hidden: Tensor
    form: Form


def rows_of(device: str, vocabulary: int) -> int:
    """Tokens in one chunk on a type of device."""
    if device in ENTRIES:
        return max(ROWS, ENTRIES[device] // vocabulary)
    return max(MORE_ROWS, MORE_ENTRIES // vocabulary)


def plain_head(model: PreTrainedModel) -> nn.Linear | None:
    """The model's head if it is a frozen linear layer and nothing else; None if all logits must be computed at once.

    None for a quantised head, one with an adapter, one in training, and weights that are split between processes,
    which are whole only inside the model's own pass.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return None
    weights = list(head.parameters())
    if hasattr(model, "unshard") or any(
        type(weight) is not nn.Parameter or weight.requires_grad for weight in weights
    ):
        return None
    return None if _FORMS.get(head, Form()) is None else head


def select(
    model: PreTrainedModel, head: nn.Linear, ids: Tensor, places: Tensor, **given: Any
) -> Selected | None:
    """One pass of the model in which the head gets a single token.

    The first pass of a model also measures what it does to the logits after the head: the head's output is replaced by
    known numbers, over the whole range of float32 and one for each word. No list of architectures is needed then.

    Returns:
        None if that is something else than `Form`. The log says so once, and `plain_head` is None from then on; the
        random state is then as before, so that a second pass has the same dropout.
    """
    kept: list[Tensor] = []
    probe = None if head in _FORMS or ids.is_meta else _probe(head)
    cuda = ids.is_cuda and probe is not None
    states = (torch.get_rng_state(), torch.cuda.get_rng_state(ids.device) if cuda else None)

    def take(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = args
        hidden = hidden.flatten(0, 1)
        kept.append(hidden.index_select(0, places))
        return (hidden[:1].unsqueeze(0), *rest)

    def replace(_: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output if probe is None else probe.clone().expand_as(output)

    handles = [head.register_forward_pre_hook(take), head.register_forward_hook(replace)]
    try:
        logits = model(input_ids=ids, **{"use_cache": False, **given}).logits
    finally:
        for handle in handles:
            handle.remove()
    if probe is not None:
        _FORMS[head] = _form(probe, logits) if len(kept) == 1 else None
        if _FORMS[head] is None:
            log.warning(
                "%s: what it does to the logits is not known, so the loss needs the logits of all tokens at once",
                type(model).__name__,
            )
            torch.set_rng_state(states[0])
            if states[1] is not None:
                torch.cuda.set_rng_state(states[1], ids.device)
    form = _FORMS.get(head, Form())
    return None if form is None else Selected(kept[0], form)


def losses(selected: Selected, targets: Tensor, head: nn.Linear, rows: int) -> Tensor:
    """NLL of each target [n] in float32; a gradient flows to the hidden states alone."""
    found: Tensor = _Chunked.apply(selected.hidden, targets, head, selected.form, rows)
    return found


_FORMS: WeakKeyDictionary[nn.Module, Form | None] = WeakKeyDictionary()
"""By head: what its model does to the logits; None if that is unknown."""


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, head: nn.Linear, form: Form, rows: int
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        found = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        back = torch.empty_like(hidden) if wanted else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            given = hidden[part].detach().requires_grad_(wanted)
            # What a chunk saves is dropped at once: hooks that move or count saved tensors shall not see it.
            with (
                torch.set_grad_enabled(wanted),
                torch.autograd.graph.saved_tensors_hooks(_same, _same),
            ):
                each = cross_entropy(form(head(given)).float(), targets[part], reduction="none")
            found[part] = each.detach()
            if back is not None:
                back[part] = torch.autograd.grad(each, given, torch.ones_like(each))[0]
        if back is not None:
            ctx.save_for_backward(back)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (back,) = ctx.saved_tensors
        return (back * grad[:, None]).to(back.dtype), None, None, None, None


def _same(tensor: Tensor) -> Tensor:
    return tensor


SMALL, LARGE = 2.0**-20, 1e30


def _probe(head: nn.Linear) -> Tensor:
    """Numbers in place of logits [vocabulary]: even ones of both signs, one of them small and one huge."""
    probe = torch.linspace(-100, 100, len(head.weight), device=head.weight.device)
    probe[0], probe[-1] = SMALL, LARGE
    return probe


def _form(probe: Tensor, logits: Tensor) -> Form | None:
    """The form that turns the probe into these logits; None if there is none."""
    logits = logits.flatten().float()
    if len(logits) != len(probe):
        return None
    scale, cap = logits[0].item() / SMALL, logits[-1].item()
    form = Form(scale, None if cap > 1e3 * abs(scale) else cap)
    near = round(scale, 5)
    if abs(near - scale) <= 1e-6 * abs(scale):
        form = form._replace(scale=near)
    return form if torch.allclose(form(probe), logits, rtol=1e-5, atol=1e-5) else None
