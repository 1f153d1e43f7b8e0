"""Checks that a loaded model is causal: no logits may depend on a later token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError, NotCausal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from elrea.models.vocabulary import Vocabulary

WORDS = "The quick brown fox jumps over the lazy dog near 27 old rivers."
LENGTH = 12
"""Tokens in the probe."""
ROUNDING = {"float32": 1e-3, "bfloat16": 0.02}
"""Largest change of earlier logits, as a share of the change at the token itself, that rounding may explain: the two
rows are computed alike, but experts or kernels may group their tokens differently."""


def check_causal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    name: str,
) -> None:
    """One forward pass of two short rows that differ in the last token alone.

    Args:
        model: In eval mode, on its device.
        tokenizer: Its tokenizer, for ordinary tokens.
        vocabulary: The ids that the model has.
        name: Of the backbone, for messages.

    Raises:
        NotCausal: Logits before the last token differ.
        BackboneError: The model cannot run.
    """
    import torch

    ids = _probe(tokenizer, vocabulary)
    other = next((i for i in ids if i != ids[-1]), None)
    if other is None:
        return  # one token alone: nothing to tell apart
    rows = torch.tensor([ids, [*ids[:-1], other]], device=model.device)
    forward: Any = model
    try:
        with torch.no_grad():
            logits = forward(input_ids=rows, attention_mask=torch.ones_like(rows)).logits.float()
    except Exception as error:  # any class, from the model's own code
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackboneError(f"{name}: its first forward pass fails: {reason}") from error
    exact = all(p.dtype == torch.float32 for p in model.parameters())
    change = (logits[0] - logits[1]).abs().amax(dim=1)
    if not torch.isfinite(change).all():
        return  # weights that are not finite are found where the loss is
    before, own, size = float(change[:-1].max()), float(change[-1]), float(logits.abs().max())
    allowed = ROUNDING["float32" if exact else "bfloat16"]
    if before > allowed * own and before > 0.01 * allowed * size:
        raise NotCausal(
            f"{name}: its logits depend on later tokens (an encoder, or attention in both directions); the backbone "
            "has to be a causal language model"
        )


def _probe(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> list[int]:
    """Ids of ordinary text, of at least two kinds."""
    coded = tokenizer(WORDS, add_special_tokens=False, verbose=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    ids = [int(i) for i in coded if vocabulary.has(int(i)) and int(i) not in special][:LENGTH]
    if len(set(ids)) > 1 and len(ids) > 2:
        return ids
    plain = [i for i in range(vocabulary.rows or 0) if i not in special]
    return plain[:LENGTH]
