"""The next-token loss (5.1); logits are computed only where a token carries loss, and a chunk of them at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.functional import cross_entropy

from elrea.models import chunked_loss

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from elrea.models.training.batches import Batch


def batch_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Σ weights · NLL over the batch's positions: a float32 scalar with its graph.

    Summed over a step's batches it is the mean over the step's examples of the mean over each example's tokens. The
    gradient features use the same scale, so that Adam's moments fit them.
    """
    return (token_losses(model, batch.ids, batch.places, batch.targets) * batch.weights).sum()


def token_losses(
    model: PreTrainedModel, ids: Tensor, places: Tensor, targets: Tensor, **given: Any
) -> Tensor:
    """NLL of n targets at n positions of `ids.flatten()`: [n] in float32, with its graph.

    More logits than fit into a chunk are computed chunk by chunk (`chunked_loss`), where the head is a frozen linear
    layer and what the model does to its output is known.

    Args:
        model: A causal language model, with or without adapters.
        ids: LongTensor [batch, time], padded on the right, or with an attention mask.
        places: LongTensor [n], n <= batch · time.
        targets: LongTensor [n], the token behind each place.
        given: Further arguments of the model's call.
    """
    head = chunked_loss.plain_head(model)
    if head is not None:
        rows = chunked_loss.rows_of(model.device.type, head.out_features)
        if len(places) > rows:
            selected = chunked_loss.select(model, head, ids, places, **given)
            if selected is not None:
                return chunked_loss.losses(selected, targets, head, rows)
    logits = logits_at(model, ids, places, **given).float()
    return cross_entropy(logits, targets, reduction="none")


def logits_at(model: PreTrainedModel, ids: Tensor, places: Tensor, **given: Any) -> Tensor:
    """Logits [n, vocabulary] at n positions of `ids.flatten()`.

    The output head gets only these positions: with a large vocabulary and short responses it would otherwise need most
    of the time and memory. A hook before the head selects them, so that what the architecture does to the logits
    afterwards (Gemma's soft cap, Cohere's scale) still happens. For a model without a separate head all logits are
    computed and then selected.

    No attention mask is needed where padding is on the right: causal attention does not look there.

    Args:
        model: A causal language model, with or without adapters.
        ids: LongTensor [batch, time], padded on the right, or with an attention mask.
        places: LongTensor [n], n <= batch · time.
        given: Further arguments of the model's call.
    """

    def select(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = args
        return (hidden.flatten(0, 1).index_select(0, places).unsqueeze(0), *rest)

    head = model.get_output_embeddings()
    handle = None if head is None else head.register_forward_pre_hook(select)
    try:
        logits: Tensor = model(input_ids=ids, **{"use_cache": False, **given}).logits
    finally:
        if handle is not None:
            handle.remove()
    logits = logits.flatten(0, 1)
    return logits if len(logits) == len(places) else logits.index_select(0, places)
