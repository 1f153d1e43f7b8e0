"""Trains the tiny backbone from scratch: `make backbone`.

It writes a folder in the Hugging Face format (Llama architecture, safetensors, byte-level tokenizer) with a model card.
A checkpoint beside the folder lets a killed training resume.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elrea.models.tiny.card import evaluate, write_card
from elrea.models.tiny.circuits import install
from elrea.models.tiny.corpus import paper
from elrea.store.files import atomic_file

ANSWER_WEIGHT = 20.0
"""Weight of an answer's token; a question's have 1, and are about 40 that are mostly random."""

FIRST_CYCLE = 6_000
"""Steps of the first of two cycles of the learning rate; the exercises end with it."""

MATCH_LAYERS = (1, 3)
"""Layers in which some heads start as lookup circuits."""

LENGTHS = ((256, 4),) * 15 + ((1024, 1),)
"""(tokens, sequences) of the batches in turn: mostly short, some long."""


def train_tokenizer(seed: int, vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the exam's text; it encodes every string."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = Random(f"tokenizer {seed}")
    texts = ("".join(text for text, _ in paper(rng, 6)) for _ in range(6_000))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=2048,
    )


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, start: int, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (tokens [b, t], weights [b, t]) for each step; a function of (seed, step) alone."""
    for step in range(start, steps):
        rng = Random(f"{seed} {step}")
        length, rows = LENGTHS[step % len(LENGTHS)]
        tokens, weights = [], []
        for _ in range(rows):
            ids: list[int] = []
            loss: list[float] = []
            while len(ids) < length + 1:
                pieces = list(paper(rng, rng.choice((1, 2, 6, 24)), _exercises(step)))
                encoded = tokenizer([text for text, _ in pieces], add_special_tokens=False)[
                    "input_ids"
                ]
                ids.append(tokenizer.bos_token_id)
                loss.append(0.0)
                for piece, (_, answer) in zip(encoded, pieces, strict=True):
                    ids += piece
                    loss += [ANSWER_WEIGHT if answer else 1.0] * len(piece)
                ids.append(tokenizer.eos_token_id)
                loss.append(1.0)
            tokens.append(ids[: length + 1])
            weights.append(loss[: length + 1])
        yield torch.tensor(tokens), torch.tensor(weights)


def _exercises(step: int) -> int:
    """Maximum number of exercises per question: many while the model learns what an option's letter is, then none."""
    return 8 if step < 800 else 3 if step < FIRST_CYCLE else 0


def learning_rate(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step, in two cycles that each begin with a warm-up of 100 steps.

    The first is constant, with a cosine decay to 2 % of the peak in its last 30 %. The second falls linearly from 80 %
    of the peak to 0.
    """
    if step >= FIRST_CYCLE:
        place = step - FIRST_CYCLE
        return peak * min(1.0, (place + 1) / 100) * 0.8 * (1 - place / max(1, steps - FIRST_CYCLE))
    fall = min(1.0, max(0.0, (step / FIRST_CYCLE - 0.7) / 0.3))
    return peak * min(1.0, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * fall)))


def train(folder: Path, steps: int, seed: int, peak: float, threads: int) -> None:
    """Trains for `steps` batches, from the checkpoint if there is one, and writes `folder`."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(seed, 1536)
    model = _initial_model(tokenizer, seed)
    named = dict(model.named_parameters())
    decayed = [p for p in named.values() if p.ndim > 1]
    plain = [p for p in named.values() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)
    checkpoint = folder.with_name(folder.name + ".checkpoint.safetensors")
    start = _resume(checkpoint, named, optimizer)
    began, seen, running = time.perf_counter(), 0, 0.0
    for step, (tokens, weights) in enumerate(batches(tokenizer, seed, start, steps), start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss, answers = _losses(model, tokens, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running = answers if step == start else 0.98 * running + 0.02 * answers
        seen += weights[:, 1:].numel()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            rate = seen / (time.perf_counter() - began)
            print(
                f"step {step + 1}/{steps}  answers {running:.3f} nats  {rate:,.0f} tokens/s",
                flush=True,
            )
            _save(checkpoint, named, optimizer, step + 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {
        "steps": steps,
        "tokens": sum(math.prod(LENGTHS[i % len(LENGTHS)]) for i in range(steps)),
        "seed": seed,
        "peak_learning_rate": peak,
        "parameters": sum(p.numel() for p in named.values()),
        "vocabulary": len(tokenizer),
    }
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    write_card(folder, facts, evaluate(model, tokenizer))


def _initial_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The model before training, random except for the lookup circuits."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    install(model, MATCH_LAYERS, seed)
    return model


def _losses(
    model: LlamaForCausalLM, tokens: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """(the weighted mean loss to train on, the mean loss of the answers' tokens) of a batch."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    answers = losses.detach()[weight == ANSWER_WEIGHT].mean().item()
    return (losses * weight).sum() / weight.sum(), answers


def _save(path: Path, named: dict, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"model/{name}": p.detach() for name, p in named.items()}
    for name, p in named.items():
        state = optimizer.state[p]
        tensors |= {f"exp_avg/{name}": state["exp_avg"], f"exp_avg_sq/{name}": state["exp_avg_sq"]}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata={"step": str(step)})


def _resume(path: Path, named: dict, optimizer: torch.optim.Optimizer) -> int:
    """Loads the checkpoint into model and optimiser; returns the number of steps taken (0 without one)."""
    if not path.exists():
        return 0
    from safetensors import safe_open

    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    for name, p in named.items():
        p.data.copy_(tensors[f"model/{name}"])
        optimizer.state[p] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg/{name}"],
            "exp_avg_sq": tensors[f"exp_avg_sq/{name}"],
        }
    return step


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--steps", type=int, default=13_500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps, arguments.seed, arguments.peak, arguments.threads)


if __name__ == "__main__":
    main()
