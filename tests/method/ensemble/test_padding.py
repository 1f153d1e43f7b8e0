"""Backbones that padding or a pass in parts would lead astray write what a plain loop writes, prompt by prompt."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, MiniMaxConfig, MiniMaxForCausalLM

from elrea.method.ensemble.decoding import generate
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.probes import chunks, pads
from tests.method.ensemble.test_decoding import words
from tests.method.ensemble.test_prefix import model_of
from tests.models.architectures import EXPERTS, built
from tests.models.builders import PAD, filled

PROMPTS = [tuple(2 + (7 * i + n) % 30 for i in range(n)) for n in (29, 3, 18)] + [(9, 4, 30)]
LENGTH = 8


def minimax() -> Any:
    config = MiniMaxConfig(
        **EXPERTS, head_dim=8, num_local_experts=2, block_size=8, layer_types=["linear_attention", "full_attention"]
    )  # fmt: skip
    torch.manual_seed(0)
    return filled(MiniMaxForCausalLM(config))


def named(kind: str) -> Any:
    """A model whose texts nothing ends."""
    model: Any = minimax() if kind == "minimax" else None
    model = model or (model_of("bart") if kind == "bart" else built(kind))
    model.generation_config = GenerationConfig()
    return model


def by_loop(model: Any, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """The likeliest tokens, one at a time, without a cache."""
    ids = list(prompt)
    for _ in range(LENGTH):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


def written(model: Any, prompts: list[tuple[int, ...]], **more: Any) -> list[tuple[int, ...]]:
    joint, settings = JointModel(model, [None]), Decoding(max_new_tokens=LENGTH)
    return generate(joint, prompts, torch.ones(len(prompts), 1), settings, words(), pad_id=PAD, **more)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "padded", "in_parts"),
    [
        ("rwkv", False, False),
        ("minimax", False, False),
        ("recurrent_gemma", False, False),
        ("bart", False, True),
        ("jamba", True, False),
        ("mamba2", True, False),
        ("qwen3_next", True, True),
        ("falcon_h1", True, True),
        ("mixtral", True, True),
    ],
)
def test_texts_are_those_of_a_loop_prompt_by_prompt(
    kind: str, padded: bool, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short prompts that go through the model whole, and the same where each pass may have 32 tokens alone."""
    model = named(kind)
    alone = [by_loop(model, prompt) for prompt in PROMPTS]
    assert len(set(alone)) > 1, "all texts are the same: the test shows nothing"
    for tokens in (10_000, 32):
        monkeypatch.setattr("elrea.method.ensemble.joint.TOKENS", tokens)
        assert written(model, PROMPTS) == alone
    assert (pads(model, PAD), chunks(model)) == (padded, in_parts)


def test_pieces_and_seeds_follow_their_prompt(caplog: pytest.LogCaptureFixture) -> None:
    model, pieces = named("rwkv"), dict[int, list[str]]()
    with caplog.at_level(logging.WARNING):
        answers = written(
            model, PROMPTS, tell=lambda n, text: pieces.setdefault(n, []).append(text)
        )
        written(model, PROMPTS)
    said = [record.message.partition(",")[0] for record in caplog.records]
    assert said == [
        "RwkvForCausalLM: padding changes its texts",
        "RwkvForCausalLM: its cache mixes up the rows of a batch",
    ]
    assert [words().decode(list(a)) for a in answers] == ["".join(pieces[n]) for n in range(4)]
    prompts = [*PROMPTS[:3], (5, 12, 20)]
    joint, warm = JointModel(model, [None]), Decoding(max_new_tokens=LENGTH, temperature=3.0)
    ones, seeds = torch.ones(4, 1), [3, 4, 5, 6]
    together = generate(joint, prompts, ones, warm, words(), pad_id=PAD, seeds=seeds)
    each = [
        generate(joint, [prompt], ones[:1], warm, words(), pad_id=PAD, seeds=[seed])[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert together == each


def test_a_longer_prompt_does_not_turn_the_others_positions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of this model all positions turn otherwise beyond 24 tokens; transformers' own texts are of one prompt each."""
    model = model_of("phi3")
    plain = GenerationConfig(max_new_tokens=LENGTH, do_sample=False, pad_token_id=PAD)
    model.generation_config = plain
    alone = [
        tuple(model.generate(torch.tensor([p]), generation_config=plain)[0, len(p) :].tolist())
        for p in PROMPTS
    ]
    model.generation_config = GenerationConfig()
    for tokens in (10_000, 32):
        monkeypatch.setattr("elrea.method.ensemble.joint.TOKENS", tokens)
        assert written(model, PROMPTS) == alone
