"""Text of all members in one pass per token, against a pass per member: is it the same, and how much faster?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.gpu.record import Record, Watch

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.gpu.setting import Setting

PROMPT = 128
ALIKE = 0.75
"""Least share of equal texts in float32: a model of random weights has near ties, which rounding decides."""
VARIED = 0.25
"""Least share of different tokens in the text with the fewest: one token again and again is equal at any position."""
STRONGER = 5
"""Factor of random weights in the layers. As they are drawn, the head, which has the embeddings' weights, repeats the
last token; with the factor the next token depends on all before it."""


def measure(setting: Setting, record: Record) -> None:
    """In float32, where both must write almost the same, and in bfloat16, where rounding may change a near tie."""
    for dtype in ("float32", "bfloat16"):
        found = record.figure(dtype, partial(_both, setting, dtype))
        if dtype == "float32" and found["equal_texts"] < ALIKE:
            raise AssertionError(f"float32: only {found['equal_texts']:.1%} of the texts are equal")
        if dtype == "float32" and found["different_tokens"] < VARIED * found["new_tokens"]:
            raise AssertionError(
                f"float32: a text has {found['different_tokens']} different tokens, too few to show a difference"
            )


def _both(setting: Setting, dtype: str) -> dict[str, Any]:
    import torch

    from elrea.method.ensemble.decoding import generate
    from elrea.method.ensemble.decoding_settings import Decoding
    from elrea.method.ensemble.joint import JointModel
    from experiments.gpu.setting import random_members, random_prompts

    backbone = setting.load(dtype)
    if setting.random:
        strengthen(backbone.model)
    count, members = setting.pick(8, 2), setting.pick(9, 3)
    new, length = setting.pick(64, 6), setting.pick(PROMPT, 16)
    vocabulary = min(backbone.model.config.vocab_size, len(backbone.tokenizer))
    prompts = random_prompts(vocabulary, count, length)
    crowd = random_members(backbone.model, members)
    joint = JointModel(backbone.model, crowd)
    weights = torch.rand(count, members, generator=torch.Generator().manual_seed(2)) + 0.1
    ended = backbone.model.generation_config
    ended.eos_token_id, backbone.tokenizer.eos_token = None, None  # all texts have the same length

    def together(tokens: int) -> list[Any]:
        return generate(
            joint, prompts, weights, Decoding(tokens), backbone.tokenizer, pad_id=backbone.pad_id
        )

    singles = [JointModel(backbone.model, [member]) for member in crowd]
    together(2)
    one_by_one(singles, prompts, weights, 2)
    with Watch() as joint_watch:
        texts = together(new)
    with Watch() as single_watch:
        wanted = one_by_one(singles, prompts, weights, new)
    equal = sum(tuple(a) == tuple(b) for a, b in zip(texts, wanted, strict=True)) / count
    rate = count * new
    return {
        "prompts": count, "members": members, "new_tokens": new, "equal_texts": equal,
        "different_tokens": min(len(set(text)) for text in wanted),
        "tokens_per_second": round(rate / joint_watch.seconds, 1),
        "tokens_per_second_one_by_one": round(rate / single_watch.seconds, 1),
        "times_as_fast": round(single_watch.seconds / joint_watch.seconds, 2),
        "peak_bytes": joint_watch.peak, "peak_bytes_one_by_one": single_watch.peak,
    }  # fmt: skip


def strengthen(model: Any) -> None:
    """Multiplies the matrices of all layers by `STRONGER`, in place."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".layers." in name and weight.ndim == 2:
                weight.mul_(STRONGER)


def one_by_one(
    singles: Sequence[Any], prompts: Sequence[tuple[int, ...]], weights: Tensor, new: int
) -> list[tuple[int, ...]]:
    """Greedy texts of the mixed logits (5.10), with a pass per member and token; prompts of one length.

    Args:
        singles: A joint model of each member alone.
        prompts: Token ids.
        weights: Of the members for each prompt [n, members].
        new: Tokens to write.
    """
    import torch
    from transformers import DynamicCache

    model = singles[0].model
    ids = torch.tensor(prompts, device=model.device)
    shares = weights.to(model.device)
    caches = [DynamicCache(config=model.config) for _ in singles]
    written = []
    with torch.inference_mode():
        for _ in range(new):
            mixed = torch.zeros((), device=model.device)
            for single, cache, share in zip(singles, caches, shares.T, strict=True):
                with single.rows() as inner:
                    out = inner(input_ids=ids, past_key_values=cache, use_cache=True)
                mixed = mixed + out.logits[:, -1].float() * share[:, None]
            ids = mixed.argmax(1, keepdim=True)
            written.append(ids)
    rows = torch.cat(written, dim=1).tolist()
    return [tuple(row) for row in rows]
