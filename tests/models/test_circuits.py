"""Where the heads of the initialised lookup circuits attend, before any training."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from elrea.models.tiny.circuits import install

# "A ) pear B ) plum C ) fig", then "find plum :", as ids whose embeddings are unrelated.
LETTERS, TEXTS, CLOSE, FIND, COLON = (1, 2, 3), (11, 12, 13), 20, 21, 22
OPTIONS = [
    token for pair in zip(LETTERS, TEXTS, strict=True) for token in (pair[0], CLOSE, pair[1])
]


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    made = LlamaForCausalLM(config).eval()
    made.set_attn_implementation("eager")  # the others do not return attention weights
    install(made, (1,), 0)
    return made


@torch.no_grad()
def attention(ids: list[int]) -> tuple[torch.Tensor, ...]:
    """[heads, t, t] of each layer."""
    out = model()(input_ids=torch.tensor([ids]), output_attentions=True)
    return tuple(layer[0] for layer in out.attentions)


def test_the_first_layer_attends_one_and_two_places_back() -> None:
    first = attention(OPTIONS * 6)[0]
    for distance in (1, 2):
        weights = torch.diagonal(first[distance - 1], -distance)[4:]
        assert weights.min() > 0.9, f"head {distance - 1} looks elsewhere: {weights}"


def test_given_a_text_it_attends_to_that_option() -> None:
    for place, text in enumerate(TEXTS):
        second = attention([*OPTIONS, FIND, text, COLON])[1]
        assert second[0, -1].argmax() in (3 * place + 2, len(OPTIONS) + 1)
        assert second[0, -1, 3 * place + 2] > 0.3


def test_given_a_letter_it_attends_to_its_text() -> None:
    for place, letter in enumerate(LETTERS):
        second = attention([*OPTIONS, FIND, letter, COLON])[1]
        assert second[1, -1].argmax() == 3 * place + 2


def test_the_weights_depend_on_the_seed() -> None:
    one, two = model(), model()
    install(two, (1,), 1)
    assert torch.equal(one.model.embed_tokens.weight, model().model.embed_tokens.weight)
    assert not torch.equal(one.model.embed_tokens.weight, two.model.embed_tokens.weight)
