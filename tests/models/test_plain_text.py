"""Plain text as language modelling: loss, gradient feature and score equal transformers' own, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elrea.data.batches import pad
from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.evaluation.scoring import Mixture, questions_of, score
from elrea.method.ensemble.joint import JointModel
from elrea.method.features.per_example import PerExampleGradients
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, parameters, set_state, state
from elrea.models.loss import batch_loss
from elrea.models.training.batches import collate, items
from tests.models.builders import filled, random_state
from tests.small_models import byte_tokenizer

CHATML = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
TEXTS = ["Once upon a time.\n", " two  spaces", "x", "A text that says </s>", "<s>one that begins"]


def example(text: str, name: str = "t") -> Example:
    return Example(name, text, "", "s", plain_text=True)


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """Of a base model, of a chat model, or without BOS or EOS."""
    tokenizer = byte_tokenizer()
    if kind == "chat":
        tokenizer.chat_template = CHATML
    if kind in ("no bos", "neither"):
        tokenizer.bos_token = None
        nothing = processors.TemplateProcessing(single="$A", special_tokens=[])
        tokenizer.backend_tokenizer.post_processor = nothing
    if kind in ("no eos", "neither"):
        tokenizer.eos_token = None
    return tokenizer


def by_hand(text: str, kind: str) -> list[int]:
    """The ids of a text between BOS and EOS, which it may say itself."""
    begins = "" if kind in ("no bos", "neither") or text.startswith("<s>") else "<s>"
    ends = "" if kind in ("no eos", "neither") or text.endswith("</s>") else "</s>"
    return list(byte_tokenizer()(begins + text + ends, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module")
def model() -> PeftModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer()), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    adapted = attach(filled(LlamaForCausalLM(config)), Lora(r=2), 0)
    set_state(adapted, {name: tensor * 0.3 for name, tensor in random_state(adapted).items()})
    return adapted.eval()


def loss_of(model: Any, ids: list[int]) -> torch.Tensor:
    """transformers' loss with the ids as labels: the first token has none."""
    return model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss


@pytest.mark.parametrize("kind", ["base", "chat", "no bos", "no eos", "neither"])
def test_training_loss_and_gradient(model, kind) -> None:
    """In one batch with an instruction row, which has its loss on the response alone."""
    prompter = Prompter(tokenizer_of(kind), 100)
    texts = [text for text in TEXTS if len(by_hand(text, kind)) > 1]
    row = Example("row", "Say it:", "yes", "s")
    encoded, dropped = prompter.train([*map(example, texts), row])
    assert not dropped
    given = [by_hand(text, kind) for text in texts]
    assert [[*e.prompt, *e.response] for e in encoded[:-1]] == given
    answer = [*encoded[-1].prompt, *encoded[-1].response]
    labels = [-100] * len(encoded[-1].prompt) + [*encoded[-1].response]
    answered = model(input_ids=torch.tensor([answer]), labels=torch.tensor([labels])).loss
    wanted = torch.stack([*(loss_of(model, ids) for ids in given), answered]).mean()
    own = list(parameters(model).values())
    gradients = torch.autograd.grad(wanted, own)
    for loss_on in ("response", "all"):
        step = items(encoded[:-1], loss_on) + items(encoded[-1:], "response")
        loss = batch_loss(model.get_base_model(), collate(step, 2, len(step)))
        torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.autograd.grad(loss, own), gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["base", "chat", "no bos"])
def test_the_feature_is_the_gradient_of_the_texts_own_loss(model, kind) -> None:
    """EOS is no part of it: it is the feature of a prompt, from which a prompt is routed too."""
    prompts = Prompter(tokenizer_of(kind), 100).routing(map(example, TEXTS[:2]))
    ids, mask = pad([prompt.prompt for prompt in prompts], 2)
    assert all(prompt.loss_mask is None and prompt.response == () for prompt in prompts)
    rows = PerExampleGradients(model)(ids, mask, mask)
    own = parameters(model)
    for text, row in zip(TEXTS, rows, strict=False):
        given = by_hand(text, kind)
        given = given[:-1] if given[-1] == 1 else given
        got = dict(
            zip(own, torch.autograd.grad(loss_of(model, given), list(own.values())), strict=True)
        )
        wanted = torch.cat([got[name].flatten() for name in sorted(got)])
        torch.testing.assert_close(row, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["base", "chat", "no bos", "neither"])
def test_the_score_is_the_loss_per_token_of_the_whole_text(model, kind) -> None:
    """Of the backbone, and of backbone and adapter mixed alike, whose logits are averaged."""
    prompter = Prompter(tokenizer_of(kind), 100)
    texts = [text for text in TEXTS if len(by_hand(text, kind)) > 1]
    encoded, too_long = prompter.test([example(text) for text in texts])
    questions = questions_of(encoded, [[] for _ in texts], [None] * len(texts))
    adapter = (state(model), Lora(r=2))
    given = [by_hand(text, kind) for text in texts]
    with torch.no_grad():
        full = [model(input_ids=torch.tensor([ids])).logits[0] for ids in given]
        with model.disable_adapter():
            bare = [model(input_ids=torch.tensor([ids])).logits[0] for ids in given]
    backbone = model.get_base_model()
    with torch.no_grad(), model.disable_adapter():
        joint = JointModel(backbone, [None, adapter])
        weights = torch.full((len(texts), 2), 0.5)
        mixed = {"backbone": Mixture([0], weights[:, :1] * 2), "both": Mixture([0, 1], weights)}
        found = score(joint, questions, mixed, batch_size=3, pad_id=2)
    assert not too_long
    for number, ids in enumerate(given):
        for name, logits in (
            ("backbone", bare[number]),
            ("both", (bare[number] + full[number]) / 2),
        ):
            each = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]))
            assert found[name].loss[number] == pytest.approx(each.item(), rel=1e-5)


def test_long_texts_are_dropped_and_counted() -> None:
    tokenizer = tokenizer_of("base")
    long, fits = example("a" * 9, "long"), example("a" * 8, "fits")
    prompter = Prompter(tokenizer, 10)
    kept, dropped = prompter.train([long, fits])
    assert ([e.id for e in kept], dropped) == (["fits"], ["long"])
    encoded, too_long = prompter.test([long, fits])
    assert too_long == ["long"] and [len(e.prompt) for e in encoded] == [0, 1]
    assert len(encoded[1].response) == 9
    (routed,) = prompter.routing([example("a" * 20)])
    assert len(routed.prompt) == 10
