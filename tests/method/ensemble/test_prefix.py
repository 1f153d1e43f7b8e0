"""Prompts that are read once give the likelihoods of a row per choice, by transformers and PEFT."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import torch
import transformers as hf

from elrea.evaluation.scoring import Mixture, Question, score
from elrea.method.ensemble import likelihood, prefix
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.likelihood import Asked, log_likelihoods
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, detach, set_state
from tests.models.builders import PAD, filled, random_state

IDS: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": PAD}
SMALL = {**IDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": 24,
    "factor": 4.0,
}
LONG = {**ROPE, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
KINDS: dict[str, tuple[type, type, dict[str, Any], list[str]]] = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, LLAMA, ["q_proj", "down_proj"]),
    "gpt2": (
        hf.GPT2LMHeadModel, hf.GPT2Config, {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        ["c_attn", "c_proj"],
    ),
    "neox": (
        hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, {**SMALL, "intermediate_size": 48}, ["query_key_value"],
    ),
    "opt": (
        hf.OPTForCausalLM, hf.OPTConfig,
        {**SMALL, "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 32}, ["q_proj", "v_proj"],
    ),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, {**LLAMA, "head_dim": 8}, ["k_proj", "o_proj"]),
    "gemma2": (
        hf.Gemma2ForCausalLM, hf.Gemma2Config,
        {**LLAMA, "head_dim": 8, "sliding_window": 7, "final_logit_softcapping": 0.5, "attn_logit_softcapping": 1.0},
        ["q_proj", "up_proj"],
    ),
    "gemma3": (
        hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, {**LLAMA, "head_dim": 8, "sliding_window": 7}, ["v_proj"],
    ),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, {**LLAMA, "sliding_window": 6}, ["q_proj"]),
    "phi": (hf.PhiForCausalLM, hf.PhiConfig, LLAMA, ["q_proj", "fc1"]),
    "phi3": (
        hf.Phi3ForCausalLM, hf.Phi3Config,
        {**LLAMA, "rope_parameters": LONG, "original_max_position_embeddings": 30}, ["qkv_proj"],
    ),
    "bloom": (
        hf.BloomForCausalLM, hf.BloomConfig, {**IDS, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        ["query_key_value"],
    ),
    "falcon": (
        hf.FalconForCausalLM, hf.FalconConfig, {**SMALL, "alibi": True, "new_decoder_architecture": False}, ["dense"],
    ),
    "mixtral": (
        hf.MixtralForCausalLM, hf.MixtralConfig,
        {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}, ["o_proj"],
    ),
    "mamba": (hf.MambaForCausalLM, hf.MambaConfig, {**IDS, "hidden_size": 32, "num_hidden_layers": 2}, ["in_proj"]),
    "jamba": (
        hf.JambaForCausalLM, hf.JambaConfig,
        {**LLAMA, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
         "num_experts": 2, "num_experts_per_tok": 1, "use_mamba_kernels": False, "mamba_d_state": 4,
         "mamba_dt_rank": 2},
        ["q_proj"],
    ),
    "roberta": (
        hf.RobertaForCausalLM, hf.RobertaConfig,
        {**SMALL, "is_decoder": True, "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 1},
        ["query"],
    ),
    "bart": (
        hf.BartForCausalLM, hf.BartConfig,
        {**IDS, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48,
         "max_position_embeddings": 64, "is_decoder": True, "is_encoder_decoder": False},
        ["q_proj"],
    ),
}  # fmt: skip
WITHOUT = ("mamba", "jamba", "roberta", "bart")
"""No keys and values, a state beside them, positions that depend on what is passed, or that count padding."""


def model_of(kind: str) -> Any:
    model, config, given, _ = KINDS[kind]
    torch.manual_seed(0)  # of the vectors
    return filled(model(config(**given)))


def adapters(kind: str, count: int = 2) -> list[Any]:
    """Random adapters of different ranks, and the backbone alone before them."""
    members: list[Any] = [None]
    for rank in range(2, count + 2):
        shape = Lora(r=rank, alpha=3.0, targets=KINDS[kind][3])
        drawn = random_state(attach(model_of(kind), shape, 0), rank)
        members.append(({name: tensor * 0.3 for name, tensor in drawn.items()}, shape))
    return members


def asked(seed: int = 0) -> list[Asked]:
    """Prompts of several lengths with choices of one to six tokens, and a free response."""
    draw = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 40) for _ in range(length))

    lengths = {21: [6, 1, 4, 6], 20: [3, 3], 9: [2, 5, 1], 14: [1, 1], 11: [4]}
    return [(ids(prompt), [ids(n) for n in choices]) for prompt, choices in lengths.items()]


def by_hand(
    kind: str, members: list[Any], questions: list[Asked], weights: torch.Tensor
) -> list[list[float]]:
    """One row per choice, one member at a time through PEFT, without a cache."""
    logits: list[list[list[torch.Tensor]]] = []
    for member in members:
        model = model_of(kind)
        if member is not None:
            model = attach(model, member[1], 0).eval()
            set_state(model, member[0])
        rows: list[list[torch.Tensor]] = []
        for prompt, choices in questions:
            rows.append([])
            for choice in choices:
                with torch.no_grad():
                    out = model(input_ids=torch.tensor([prompt + choice]), use_cache=False).logits
                rows[-1].append(out[0, len(prompt) - 1 : -1].double())
        logits.append(rows)
    found: list[list[float]] = []
    for i, (_, choices) in enumerate(questions):
        found.append([])
        for c, choice in enumerate(choices):
            parts = zip(weights[i].double(), logits, strict=True)
            mixed = torch.stack([w * of[i][c] for w, of in parts]).sum(0)
            found[-1].append(float(mixed.log_softmax(-1)[range(len(choice)), choice].sum()))
    return found


def counted(model: Any) -> list[int]:
    """Number of tokens of each pass through the model, with padding, from now on."""
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _m, i, _o: seen.append(i[0].numel()))
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_are_those_of_a_row_per_choice(kind: str) -> None:
    members, questions = adapters(kind), asked()
    weights = torch.rand(len(questions), 3, generator=torch.Generator().manual_seed(1))
    weights[1, 1] = 0.0
    model = model_of(kind)
    joint = JointModel(model, members)
    assert prefix.shares_prompts(model) is (kind not in WITHOUT)
    seen = counted(model)
    got = log_likelihoods(joint, questions, weights, batch_size=4, pad_id=PAD)
    wanted = by_hand(kind, members, questions, weights)
    for one, other in zip(got, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5 * max(1, max(map(abs, other))))
    most = sum(
        int((weights[i] != 0).sum()) * (len(prompt) + sum(map(len, choices)))
        for i, (prompt, choices) in enumerate(questions)
    )
    if kind in WITHOUT:
        assert sum(seen) > 1.25 * most, "the count of tokens shows nothing"
    else:
        assert sum(seen) <= 1.25 * most


def test_passes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same likelihoods with a row at a time, and no pass has more tokens than allowed."""
    members, questions = adapters("mistral", 3), asked()
    joint, weights = JointModel(model_of("mistral"), members), torch.rand(len(questions), 4)
    wanted = log_likelihoods(joint, questions, weights, batch_size=4, pad_id=PAD)
    monkeypatch.setattr(prefix, "TOKENS", {"cpu": 50})
    seen = counted(joint.model)
    got = log_likelihoods(joint, questions[:3], weights[:3], batch_size=4, pad_id=PAD)
    assert max(seen) <= 50
    for one, other in zip(got, wanted, strict=False):
        assert one == pytest.approx(other, abs=1e-5)


def test_members_without_weight_are_not_run() -> None:
    """Of each prompt only the members with a weight in any strategy are run, whatever its choices; nothing changes."""
    joint, questions = JointModel(model_of("llama"), adapters("llama", 4)), asked(1)
    top = torch.eye(5)[[2, 1, 0, 4, 2]] * 0.7
    given = {
        "top": Mixture([0, 1, 2, 3, 4], top),
        "one": Mixture([3], torch.tensor([[1.0], [0], [0], [0], [1]])),
    }
    each = [Question(p, tuple(cs), 0 if len(cs) > 1 else None) for p, cs in questions]
    prefix.shares_prompts(joint.model)
    seen = counted(joint.model)
    few = score(joint, each, given, batch_size=5, pad_id=PAD)
    cost, needed = sum(seen), [2, 1, 1, 1, 2]
    tokens = [len(p) + sum(len(c) - 1 for c in cs) for p, cs in questions]
    assert cost <= 1.25 * sum(n * t for n, t in zip(needed, tokens, strict=True))
    seen.clear()
    everything = {**given, "all": Mixture([0, 1, 2, 3, 4], torch.ones(5, 5))}
    full = score(joint, each, everything, batch_size=5, pad_id=PAD)
    assert sum(seen) > 2.5 * cost
    for name in given:
        assert few[name].choice == full[name].choice and few[name].correct == full[name].correct
        assert few[name].loss == pytest.approx(full[name].loss, abs=1e-5)


def test_members_mixed_inside_the_layers_read_a_prompt_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, members = model_of("llama"), adapters("llama", 3)[1:]
    inside = LayerwiseModel(model, members, MoeRouting().delta)
    each = [Question(p, tuple(cs), 0) for p, cs in asked() if len(cs) > 1]
    weights = torch.rand(len(each), 3).softmax(1)
    given = {"inside": Mixture([], weights, model=inside)}
    got = score(JointModel(model, [None]), each, given, batch_size=4, pad_id=PAD)["inside"]
    monkeypatch.setattr(likelihood, "shares_prompts", lambda _model: False)
    wanted = score(JointModel(model, [None]), each, given, batch_size=1, pad_id=PAD)["inside"]
    assert got.choice == wanted.choice and got.loss == pytest.approx(wanted.loss, abs=1e-5)


def test_a_longer_rotary_scale_is_not_continued() -> None:
    """Beyond its first length, longrope turns the prompt's keys otherwise: such sequences are read whole."""
    assert prefix.most_shared(model_of("llama")) == float("inf")
    kind, config, given, _ = KINDS["phi3"]
    model = filled(kind(config(**{**given, "original_max_position_embeddings": 24})))
    assert prefix.most_shared(model) == 24
    kinds = {
        len(group.of_place): type(group).__name__
        for _, group in likelihood.batches(asked()[:2], 1, model)
    }
    assert kinds == {17: "Rows", 5: "Shared"}


def test_a_row_that_just_fits_is_read_with_none_that_does_not() -> None:
    """The last token of a continuation is not read: a prompt of 21 tokens and 4 more are a row of 24."""
    kind, config, given, _ = KINDS["phi3"]
    model = filled(kind(config(**{**given, "original_max_position_embeddings": 24})))
    ids = [tuple(2 + (7 * i + n) % 30 for i in range(n)) for n in (25, 27, 20)]
    them: list[Any] = [(row[:21], [row[21:]]) for row in ids[:2]] + [(ids[2][:17], [ids[2][17:]])]
    got = log_likelihoods(
        JointModel(model, [None]), them, torch.ones(3, 1), batch_size=3, pad_id=PAD
    )
    for (prompt, (rest,)), (one,) in zip(them, got, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *rest[:-1]]])).logits[0, len(prompt) - 1 :]
        wanted = logits.float().log_softmax(-1)[range(len(rest)), list(rest)].sum()
        assert one == pytest.approx(float(wanted), abs=1e-4)


def test_a_model_without_a_cache_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    joint, weights = JointModel(model_of("mamba"), [None]), torch.ones(5, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            log_likelihoods(joint, asked(), weights, batch_size=2, pad_id=PAD)
    said = [record.message for record in caplog.records if "read once per choice" in record.message]
    assert len(said) == 1 and said[0].startswith("MambaForCausalLM")


def test_the_cached_prompt_is_left_as_it_was() -> None:
    model = model_of("mistral")
    kept: Any = prefix._empty(model)
    with torch.no_grad():
        model(
            input_ids=torch.arange(3, 13)[None].repeat(2, 1), past_key_values=kept, use_cache=True
        )
        before = [layer.keys.clone() for layer in kept.layers]
        own = prefix._copy(kept, 2, [0, 1, 1])
        model(input_ids=torch.ones(3, 4, dtype=torch.long), past_key_values=own, use_cache=True)
    assert own.get_seq_length() == 14 and kept.get_seq_length() == 10
    assert all(torch.equal(a, layer.keys) for a, layer in zip(before, kept.layers, strict=True))


def test_the_backbone_comes_out_of_a_peft_model_unchanged() -> None:
    """The same object is asked again after PEFT has been around it: its answer is kept."""
    model = model_of("llama")
    assert prefix.shares_prompts(model)
    assert detach(attach(model, Lora(r=2), 0)) is model and prefix.shares_prompts(model)
