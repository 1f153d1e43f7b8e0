"""Every answer of a chat carries loss: loss and gradient against labels that are made by hand from the template's text.

The labels come from jinja2's rendering and the tokenizer's character offsets alone; the loss is transformers' own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elrea.data.examples import Example
from elrea.data.prompts import Encoded, Prompter
from elrea.errors import DataError
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, parameters
from elrea.models.loss import batch_loss
from elrea.models.training.batches import collate, items
from tests.models.builders import filled
from tests.small_models import byte_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|>\n\n' + m['content'] | trim"
    " + '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}"
    "{% endif %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<turn>' + role + '\n' + m['content'] | trim + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% else %}"
    "{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)
HARMONY = (  # the last answer ends by another marker than the earlier ones
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] }}"
    "{{ '<|return|>' if loop.last and m['role'] == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|message|>' }}{% endif %}"
)
THINKING = (  # an earlier answer loses its thought
    "{% for m in messages %}{% set c = m['content'] %}{% if m['role'] == 'assistant' and not loop.last %}"
    "{% set c = c.split('</think>')[-1] | trim %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# By template: its special tokens, and a pattern whose group is what an answer learns. Written by hand.
LAYOUTS: dict[str, tuple[str, list[str], str]] = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
    "llama": (LLAMA, ["<|start|>", "<|stop|>", "<|eot|>"], r"<\|start\|>assistant<\|stop\|>\n\n(.*?<\|eot\|>)"),
    "gemma": (GEMMA, ["<turn>", "<end>"], r"<turn>model\n(.*?<end>)"),
    "mistral": (MISTRAL, [], r"\[/INST\]( .*?</s>)"),
    "harmony": (HARMONY, ["<|start|>", "<|message|>", "<|end|>", "<|return|>"],
                r"<\|start\|>assistant<\|message\|>(.*?(?:<\|end\|>|<\|return\|>))"),
    "thinking": (THINKING, ["<|im_start|>", "<|im_end|>"], r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
    "no tokens": (CHATML, [], r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
}  # fmt: skip
CHAT = Example(
    id="chat",
    instruction="Last one:",
    response="Yes.",
    source="s",
    history=(
        ("user", "Hi assistant?\n"), ("assistant", "  Hello, assistant\n\nyou."),
        ("user", "And\n\nthen?"), ("assistant", "<think>\nHm.\n</think>\n\nHello, assistant"),
    ),
    turn_loss=(None, True, None, True),
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    """A Llama for the byte-level tokenizer and up to eight more tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer()) + 8, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    return attach(filled(LlamaForCausalLM(config)), Lora(r=2), 0)


def tokenizer_of(layout: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    if layout != "plain":
        tokenizer.chat_template, marks, _ = LAYOUTS[layout]
        tokenizer.add_special_tokens({"additional_special_tokens": marks})
    return tokenizer


def by_hand(layout: str, chat: Example, learned: set[int]) -> tuple[list[int], list[int]]:
    """Token ids and labels of a chat whose answers of these numbers are learned; -100 for no loss."""
    tokenizer = tokenizer_of(layout)
    turns = [*chat.history, ("user", chat.instruction), ("assistant", chat.response)]
    if layout == "plain":
        # A space stands before an answer, unless a line break does; the first answer has two of its own.
        words = [
            "  Hello, assistant\n\nyou.",
            " <think>\nHm.\n</think>\n\nHello, assistant",
            " Yes.</s>",
        ]
        text = f"<s>Hi assistant?\n{words[0]}\n\nAnd\n\nthen?{words[1]}\n\nLast one:{words[2]}"
        spans = [(text.index(word), text.index(word) + len(word)) for word in words]
    else:
        messages = [{"role": role, "content": text} for role, text in turns]
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
        found = re.finditer(LAYOUTS[layout][2], text, re.DOTALL)
        spans = [match.span(1) for match in found]
        text = text[: spans[-1][1]]
        if not text.endswith("</s>"):  # EOS ends every response
            spans[-1] = (spans[-1][0], spans[-1][1] + 4)
            text += "</s>"
    assert len(spans) == 3
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(begin < spans[n][1] and spans[n][0] < end for n in learned) else -100
        for token, (begin, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True)
    ]
    return coded["input_ids"], labels


@pytest.mark.parametrize("layout", ["plain", *LAYOUTS])
@pytest.mark.parametrize(
    ("loss", "learned"),
    [
        ((None, True, None, True), {0, 1, 2}),
        ((), {2}),
        ((None, False, None, True), {1, 2}),
        ((None, True, None, False), {0, 2}),
    ],
)
def test_loss_and_gradient_equal_labels_by_hand(model, layout, loss, learned) -> None:
    chat = replace(CHAT, turn_loss=loss)
    tokenizer = tokenizer_of(layout)
    (encoded,), dropped = Prompter(tokenizer, 500).train([chat])
    ids, labels = by_hand(layout, chat, learned)
    assert [*encoded.prompt, *encoded.response] == ids and not dropped
    gradients = []
    for loss_of in (
        lambda: model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss,
        lambda: batch_loss(model.get_base_model(), collate(items([encoded], "response"), 2, 1)),
    ):
        model.zero_grad()
        value = loss_of()
        value.backward()
        gradients.append(
            [
                value.detach(),
                *(p.grad.clone() for p in parameters(model).values() if p.grad is not None),
            ]
        )
    assert sum(label != -100 for label in labels) == items([encoded], "response")[0].counted
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    assert any(gradient.any() for gradient in gradients[0][1:])


def test_the_mask_of_a_template_that_marks_its_answers() -> None:
    """transformers' own mask, by a template that says where the assistant speaks."""
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
        "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    turns = [*CHAT.history, ("user", CHAT.instruction), ("assistant", CHAT.response)]
    given: Any = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in turns],
        return_dict=True, return_assistant_tokens_mask=True,
    )  # fmt: skip
    encoded = Prompter(tokenizer, 500).encode(CHAT)
    assert encoded.prompt_loss is not None
    assert list(encoded.prompt) == given["input_ids"][: len(encoded.prompt)]
    assert [int(flag) for flag in encoded.prompt_loss] == given["assistant_masks"][
        : len(encoded.prompt)
    ]


@pytest.mark.parametrize("mark", ["ELREA-TURN", "\ue000", "\ue000\ue001"])
def test_no_words_of_a_user_are_taken_for_an_answer(mark: str) -> None:
    """Whatever stands for an answer while its place is looked for, a user may have written it."""
    turns = ((role, f"{mark} {text}") for role, text in CHAT.history)
    chat = replace(CHAT, history=tuple(turns))
    tokenizer = tokenizer_of("chatml")
    encoded = Prompter(tokenizer, 500).encode(chat)
    assert encoded.prompt_loss is not None
    learned = [t for t, flag in zip(encoded.prompt, encoded.prompt_loss, strict=True) if flag]
    answers = [f"{text}<|im_end|>" for role, text in chat.history if role == "assistant"]
    assert tokenizer.decode(learned) == "".join(answers)


def test_shots_are_not_turns() -> None:
    """Solved examples stand before the chat as turns, and carry no loss."""
    shot = replace(CHAT, shots=(("Hi assistant?\n", "  Hello, assistant\n\nyou."),))
    for layout in ("plain", "chatml", "mistral"):
        prompter = Prompter(tokenizer_of(layout), 900)
        with_shot, without = prompter.encode(shot), prompter.encode(CHAT)
        assert with_shot.prompt_loss is not None and without.prompt_loss is not None
        assert sum(with_shot.prompt_loss) == sum(without.prompt_loss)
        assert not any(with_shot.prompt_loss[: len(with_shot.prompt) - len(without.prompt)])
        assert prompter.routing([shot]) == prompter.routing([CHAT])


def test_a_system_turn_is_no_answer() -> None:
    """Where the template has no system role, its words go into the first user's turn."""
    chat = replace(
        CHAT, history=(("system", "Be kind."), *CHAT.history), turn_loss=(None, *CHAT.turn_loss)
    )
    for layout in ("chatml", "gemma", "mistral", "plain"):
        prompter = Prompter(tokenizer_of(layout), 900)
        masks = [prompter.encode(each).prompt_loss for each in (chat, CHAT)]
        assert masks[0] is not None and masks[1] is not None
        assert sum(masks[0]) == sum(masks[1])


def test_a_weight_of_zero_holds_where_all_tokens_are_learned() -> None:
    chat = replace(CHAT, turn_loss=(None, False, None, None))
    tokenizer = tokenizer_of("chatml")
    (item,) = items([Prompter(tokenizer, 500).encode(chat)], "all")
    _, labels = by_hand("chatml", chat, {0})
    counted = {*item.earlier, *range(item.first, len(item.tokens))}
    assert counted == {place for place, label in enumerate(labels) if label == -100 and place > 0}


def test_a_template_that_moves_turns_is_refused() -> None:
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = (
        "{{ messages | map(attribute='content') | join(' ') | length }}{% for m in messages %}"
        "{{ '<|im_start|>' + m['content'] }}{% endfor %}"
    )
    with pytest.raises(DataError, match=r"chat: turn 2 cannot be found.*data\.turns=last"):
        Prompter(tokenizer, 500).encode(CHAT)


def test_flags_next_to_the_response_are_one_stretch_with_it() -> None:
    encoded = Encoded("a", (2, 5, 6, 8), (7, 1), prompt_loss=(True, True, False, True))
    (item,) = items([encoded], "response")
    assert (item.first, item.earlier, item.counted) == (3, (1,), 4)
    batch = collate([item], 0, 1)
    assert batch.places.tolist() == [0, 2, 3, 4] and batch.targets.tolist() == [5, 8, 7, 1]
    assert batch.weights.tolist() == [0.25] * 4
