"""Two-layer models and generated examples for tests; nothing is downloaded."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from elrea.data.prompts import Encoded
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, state
from elrea.models.training.settings import Recipe, Training
from elrea.models.training.train import train_adapter

VOCABULARY = 40
PAD = 0


def llama() -> PreTrainedModel:
    """Two layers, grouped queries."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return filled(LlamaForCausalLM(config))


def gpt2() -> PreTrainedModel:
    """Two layers of Conv1D; the backbone's own dropout is off, so that runs are comparable."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return filled(GPT2LMHeadModel(config))


def gemma2() -> PreTrainedModel:
    """Two layers and a soft cap on the logits, low enough to change them."""
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        final_logit_softcapping=0.5,
    )
    return filled(Gemma2ForCausalLM(config))


def filled(model: PreTrainedModel) -> PreTrainedModel:
    """Sets all matrices from one seed, so that the library's initialisation does not matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


BUILDERS = {"llama": llama, "gpt2": gpt2, "gemma2": gemma2}


def random_state(model: PeftModel, seed: int = 1) -> dict[str, torch.Tensor]:
    """A random adapter of the model's shape, whose B are not zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator)
        for name, tensor in state(model).items()
    }


def random_adapter(kind: str, lora: Lora, seed: int) -> tuple[dict[str, torch.Tensor], Lora]:
    """A random adapter and its shape, as `lora.load` returns them."""
    drawn = random_state(attach(BUILDERS[kind](), lora, 0), seed)
    return {name: tensor * 0.3 for name, tensor in drawn.items()}, lora


def examples(count: int, seed: int = 0) -> list[Encoded]:
    """Prompts of 2 to 9 tokens; the response is the prompt's second token, once or twice, then token 1."""
    draw = random.Random(seed)
    made = []
    for index in range(count):
        prompt = (2, *(draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, 8))))
        made.append(Encoded(f"made/{index}", prompt, (prompt[1],) * draw.randint(1, 2) + (1,)))
    return made


def train(folder: Path, kind: str = "llama", lora: Lora | None = None, **given: Any) -> Any:
    """Trains on 10 examples in steps of 4 for 3 epochs (9 steps); returns the model.

    Args:
        folder: For the outputs.
        kind: Key of `BUILDERS`.
        lora: The adapter's shape; rank 2 without dropout by default.
        given: Arguments of `train_adapter`, or fields of `Training`.
    """
    lora = lora or Lora(r=2, dropout=0.0)
    fields = {k: given.pop(k) for k in list(given) if k in Training.__dataclass_fields__}
    training = Training(**{"learning_rate": 0.02, "batch_size": 4, **fields})
    model = given.pop("model", None) or attach(BUILDERS[kind](), lora, 0)
    arguments: dict[str, Any] = {
        "encoded": examples(10),
        "recipe": Recipe(training.epochs, training.learning_rate, training),
        "pad_id": PAD,
        "lora": lora,
        "base_name": "made-up",
        "seed": 3,
        "stage": "base",
        "folder": folder,
        "keep_moments": True,
    }
    train_adapter(model, **{**arguments, **given})
    return model


class Recorder:
    """A Task that keeps all reports."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.rows: list[dict[str, Any]] = []

    def advance(self, count: int) -> None:
        self.counts.append(count)

    def step(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a training's result, without checkpoints."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith("checkpoint/")}
