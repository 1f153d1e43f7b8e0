"""The model, the prompts and the projections that the benchmark of features measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

D, RANK = 1024, 8
LARGE = ("smollm2", "smollm2 at once")
"""Ways whose peak is measured with 32 prompts of 113 tokens and a model of SmolLM2-135M's shape."""
Way = Callable[[], object]


class Setting:
    """A model with an adapter and the moments of an epoch, drawn at random in place of training.

    Args:
        kind: `tiny` (the built-in backbone) or `mid` (a Llama of 12 layers, 768 wide, with random weights).
        folder: For the epoch's checkpoint.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        from elrea.models import lora
        from elrea.models.adapter_shape import Lora
        from elrea.models.training.moments import Moments

        torch.manual_seed(0)
        self.model = lora.attach(backbone_of(kind), Lora(r=RANK, dropout=0.0), 0)
        generator = torch.Generator().manual_seed(1)

        def like(scale: float) -> dict[str, torch.Tensor]:
            state = lora.state(self.model)
            return {k: torch.randn(v.shape, generator=generator) * scale for k, v in state.items()}

        lora.set_state(self.model, like(0.02))
        lora.save(folder, lora.state(self.model), Lora(r=RANK, dropout=0.0), kind)
        squares = {name: tensor.square() for name, tensor in like(1e-3).items()}
        self.moments = Moments(like(1e-4), squares, 100, 1e-3, (0.9, 0.999), 1e-8)
        self.moments.save(folder)
        self.folder, self.vocabulary = folder, self.model.config.vocab_size

    def prompts(self, count: int, tokens: int) -> list[Any]:
        from elrea.data.prompts import Encoded

        generator = torch.Generator().manual_seed(tokens)
        ids = torch.randint(3, self.vocabulary, (count, tokens), generator=generator)
        return [Encoded(str(i), tuple(row), ()) for i, row in enumerate(ids.tolist())]

    def plain(self, prompts: list[Any], batch: int) -> Way:
        from elrea.method.features.per_example import prompt_loss

        ids = torch.tensor([prompt.prompt for prompt in prompts])
        mask = torch.ones_like(ids, dtype=torch.bool)

        def run() -> None:
            for part, kept in zip(ids.split(batch), mask.split(batch), strict=True):
                self.model.zero_grad()
                prompt_loss(self.model, part, kept, kept).backward()

        return run

    def ours(self, prompts: list[Any], batch: int, projection: Any) -> Callable[[], torch.Tensor]:
        from elrea.method.features.gradient import GradientFeatures

        features = GradientFeatures(projection, batch_size=batch)
        reader = features.reader(self.model, [self.folder], 0)
        batches = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
        return lambda: reader(batches, lambda _n: None)[0]

    def loop(self, prompts: list[Any], rows: int, projection: Any) -> Callable[[], torch.Tensor]:
        from elrea.method.features.adam import AdamState, adam_direction
        from elrea.method.features.per_example import prompt_loss
        from elrea.models.lora import parameters

        m = self.moments
        weights = [tensor for _, tensor in sorted(parameters(self.model).items())]
        first, second = (
            torch.cat([group[n].flatten() for n in sorted(group)])
            for group in (m.exp_avg, m.exp_avg_sq)
        )
        state = AdamState(first, second, m.step, m.learning_rate, *m.betas, m.eps)

        def one(prompt: Any) -> torch.Tensor:
            ids = torch.tensor([prompt.prompt])
            mask = torch.ones_like(ids, dtype=torch.bool)
            got = torch.autograd.grad(prompt_loss(self.model, ids, mask, mask), weights)
            return torch.cat([gradient.flatten() for gradient in got])

        def run() -> torch.Tensor:
            done = []
            for start in range(0, len(prompts), rows):
                stacked = torch.stack([one(prompt) for prompt in prompts[start : start + rows]])
                done.append(projection(adam_direction(stacked, state)))
            return torch.cat(done)

        return run

    def operations(self, tokens: int) -> float:
        """Multiplications and additions in the matrix products of one prompt's plain pass."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.plain(self.prompts(8, tokens), 8)()
        return counter.get_total_flops() / 8


def backbone_of(kind: str) -> Any:
    """The built-in backbone, or a Llama with random weights: 12 layers, 768 wide, or SmolLM2-135M's shape; frozen."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if kind == "tiny":
        from elrea.models.backbone import TINY

        return AutoModelForCausalLM.from_pretrained(TINY).requires_grad_(False)
    if kind == "smollm2":
        small = LlamaConfig(
            vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(small).eval().requires_grad_(False)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def projections() -> dict[str, Any]:
    from elrea.method.features.projection import Rademacher
    from elrea.method.features.sjlt import Sjlt

    return {"sjlt": Sjlt(D), "rademacher": Rademacher(D)}
