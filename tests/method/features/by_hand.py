"""The features' formulas written out, one example at a time and in float64: what the code is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from elrea.data.prompts import Encoded
from elrea.models.lora import parameters
from elrea.models.training.moments import Moments


def flat(tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
    """By sorted name, one after the other."""
    parts = [tensors[name].detach().flatten().double().numpy() for name in sorted(tensors)]
    return np.concatenate(parts)


def gradient(model: PeftModel, prompt: Encoded) -> np.ndarray:
    """∇ of the mean next-token loss of one prompt alone, by an ordinary backward pass."""
    own = parameters(model)
    ids = torch.tensor([prompt.prompt])
    losses = cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    counts = torch.tensor(prompt.loss_mask or [True] * len(prompt.prompt))[1:]
    got = torch.autograd.grad(losses[counts].mean(), list(own.values()))
    return flat(dict(zip(own, got, strict=True)))


def gradients(model: PeftModel, prompts: Sequence[Encoded]) -> np.ndarray:
    """[n, |θ|]."""
    return np.stack([gradient(model, prompt) for prompt in prompts])


def adam(g: np.ndarray, moments: Moments, momentum: bool = True) -> np.ndarray:
    """(5.6) and (5.7) as they are printed, with t = steps + 1."""
    m, v = flat(moments.exp_avg), flat(moments.exp_avg_sq)
    beta1, beta2 = moments.betas
    t = moments.step + 1
    first = ((beta1 * m if momentum else 0) + (1 - beta1) * g) / (1 - beta1**t)
    second = (beta2 * v + (1 - beta2) * g**2) / (1 - beta2**t)
    return moments.learning_rate * first / (np.sqrt(second) + moments.eps)


def prompts(count: int, seed: int = 0, masked: bool = False) -> list[Encoded]:
    """Prompts of 3 to 9 tokens; `masked`: every other one's loss is on some of its tokens alone."""
    draw = np.random.default_rng(seed)
    made = []
    for index in range(count):
        ids = tuple(int(token) for token in draw.integers(2, 40, size=3 + int(draw.integers(7))))
        mask = tuple(bool(place % 2) for place in range(len(ids))) if masked and index % 2 else None
        made.append(Encoded(f"p/{index}", ids, (), mask))
    return made
