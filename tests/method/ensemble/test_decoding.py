"""One `generate` for all members gives the same tokens as a loop over tokens and members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.errors import ConfigError
from elrea.method.ensemble.decoding import Mixer, StopTexts, ends_of, generate
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import Adapter, JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.strategies.moe_merging import MoeMerging
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, set_state
from tests.data.conftest import CHATML
from tests.models.builders import BUILDERS, PAD, random_adapter
from tests.small_models import byte_tokenizer, small_llama

PROMPTS = [(5, 9, 3), (7,), (4, 4, 8, 20, 11, 30, 2), (12, 6)]
WEIGHTS = torch.tensor([[0.3, 0.5, 0.2], [0.0, 1.0, 0.0], [0.6, 0.0, 0.9], [1.0, 1.0, 1.0]])
LENGTH = 12


class Letters:
    """A tokenizer of 40 letters; one token ends an answer."""

    def __init__(self, end: int | None = None) -> None:
        self.eos_token_id = end

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(chr(ord("0") + i) for i in ids)


def words(end: int | None = None) -> Any:
    return Letters(end)


def crowd(kind: str) -> list[Adapter | None]:
    return [random_adapter(kind, Lora(r=2), 1), random_adapter(kind, Lora(r=3), 2), None]


def by_loop(kind: str, end: int | None) -> list[tuple[int, ...]]:
    """(5.10) with one adapter at a time in PEFT, one prompt at a time, without a cache."""
    answers = []
    ends = ends_of(BUILDERS[kind](), words(end))
    models: list[Any] = [BUILDERS[kind]() for _ in crowd(kind)]
    for place, member in enumerate(crowd(kind)):
        if member is not None:
            models[place] = attach(models[place], member[1], 0)
            set_state(models[place], member[0])
    for prompt, weights in zip(PROMPTS, WEIGHTS, strict=True):
        ids = list(prompt)
        for _ in range(LENGTH):
            total = torch.zeros(40)
            for weight, model in zip(weights, models, strict=True):
                with torch.no_grad():
                    total += weight * model(torch.tensor([ids])).logits[0, -1]
            token = int(total.argmax())
            if token in ends:
                break
            ids.append(token)
        answers.append(tuple(ids[len(prompt) :]))
    return answers


def written(kind: str, end: int | None = None, **more: object) -> list[tuple[int, ...]]:
    joint = JointModel(BUILDERS[kind](), crowd(kind))
    decoding = Decoding(max_new_tokens=LENGTH)
    return generate(joint, PROMPTS, WEIGHTS, decoding, words(end), pad_id=PAD, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_greedy_answers_are_a_plain_loops(kind: str) -> None:
    """Prompts of different lengths and different members, with and without an end."""
    free = by_loop(kind, None)
    assert written(kind) == free
    assert len(set(free)) > 1, "all answers are the same: the test shows nothing"
    end = free[0][4]
    ended = by_loop(kind, end)
    assert written(kind, end) == ended
    assert min(map(len, ended)) < LENGTH


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_reading_prompts_in_chunks_changes_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long prompts of different lengths: the shortest is all padding in the first chunks."""
    prompts = [tuple(1 + (7 * i + n) % 30 for i in range(n)) for n in (29, 3, 18)]
    joint, decoding = JointModel(BUILDERS[kind](), crowd(kind)), Decoding(max_new_tokens=LENGTH)
    rows = int((WEIGHTS[:3] != 0).sum())
    found = []
    for tokens in (10_000, 8 * rows):
        monkeypatch.setattr("elrea.method.ensemble.joint.TOKENS", tokens)
        assert joint.chunk(rows, 29) == (None if tokens > 9000 else 8)
        found.append(generate(joint, prompts, WEIGHTS[:3], decoding, words(), pad_id=PAD))
    assert found[0] == found[1]
    elsewhere: Any = BUILDERS["llama"]()
    assert JointModel(elsewhere.to("meta"), []).chunk(rows, 29) is None


def test_a_backbone_that_keeps_no_keys_reads_prompts_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elrea.method.ensemble.joint.TOKENS", 8)
    shape = MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2)
    joint, settings = JointModel(MambaForCausalLM(shape), [None]), Decoding(max_new_tokens=3)
    prompts = [tuple(range(1, 21)), tuple(range(3, 30))]
    alone = [
        generate(joint, [p], WEIGHTS[:1, :1], settings, words(), pad_id=PAD)[0] for p in prompts
    ]
    assert generate(joint, prompts, torch.ones(2, 1), settings, words(), pad_id=PAD) == alone


def test_a_stop_text_that_begins_in_the_prompt_does_not_end_the_answer(tmp_path: Path) -> None:
    """A stop text ends an answer where Python finds it in the text that is written without one."""
    tokenizer = byte_tokenizer()
    model = LlamaForCausalLM.from_pretrained(small_llama(tmp_path))
    letters = tokenizer("".join(map(chr, range(33, 127))))["input_ids"][1:]
    others = [token for token in range(len(tokenizer)) if token not in letters]
    model.lm_head.weight.data[others] = 0  # a byte alone has no text
    joint = JointModel(model, [None])
    prompts = ["What is 2 + 2?\n", "Hi"]
    ids = [tuple(tokenizer(text)["input_ids"]) for text in prompts]

    def texts(*stop: str) -> list[str]:
        decoding = Decoding(max_new_tokens=9, stop=list(stop))
        found = generate(joint, ids, torch.ones(2, 1), decoding, tokenizer, pad_id=2)
        return [str(tokenizer.decode(list(answer))) for answer in found]

    free = texts()
    first, middle = free[0][0], free[0][3:5]
    for stop in (f"\n{first}", f"?\n{first}", f"{prompts[1][-1]}{free[1][:2]}"):
        assert stop not in "".join(free) and texts(stop) == free
    assert texts(middle)[0] == free[0][: free[0].index(middle) + len(middle)]


def test_a_stop_text_must_be_in_the_answers_text() -> None:
    """As in Llama 2's tokenizer, the space of the first word is not written."""
    pieces = ["▁", *"abcdef", "▁a", "▁b"]
    backend = Tokenizer(BPE({p: i for i, p in enumerate(pieces)}, [("▁", "a"), ("▁", "b")]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    answers = torch.tensor([[1, 7], [7, 7], [8, 7]])  # " a" after a, twice, and after " b"
    assert tokenizer.decode(answers[1]) == "a a"
    for prompt in ([], [[8, 2]] * 3):
        ids = torch.cat([torch.tensor(prompt, dtype=torch.long).reshape(3, -1), answers], dim=1)
        criterion = StopTexts(tokenizer, [" a"], len(prompt[0]) if prompt else 0)
        assert criterion(ids, None).tolist() == [True, True, True]
        assert criterion(ids[:, :-1], None).tolist() == [False, False, False]


def test_the_models_own_settings_change_nothing() -> None:
    """A repetition penalty would be laid on each member's logits, before they are mixed."""
    backbone = BUILDERS["llama"]()
    own = GenerationConfig(repetition_penalty=3.0, do_sample=True, temperature=9.0, eos_token_id=2)
    backbone.generation_config = own
    joint = JointModel(backbone, crowd("llama"))
    got = generate(joint, PROMPTS, WEIGHTS, Decoding(max_new_tokens=LENGTH), words(), pad_id=PAD)
    assert got == written("llama")
    assert backbone.generation_config is own
    assert not any(module._forward_hooks for module in backbone.modules())


def test_the_models_own_ends_end_an_answer_too() -> None:
    """A chat model ends its turn with a token that is not the tokenizer's end of a text."""
    end = written("llama")[0][4]
    backbone = BUILDERS["llama"]()
    assert ends_of(backbone, words(None)) == [2], "as its configuration has it"
    backbone.generation_config = GenerationConfig(eos_token_id=[2, end])
    assert ends_of(backbone, words(7)) == sorted({2, 7, end})
    joint, decoding = JointModel(backbone, crowd("llama")), Decoding(max_new_tokens=LENGTH)
    got = generate(joint, PROMPTS, WEIGHTS, decoding, words(), pad_id=PAD)
    assert got == written("llama", end)


def test_the_end_of_a_chats_turn_ends_an_answer(tmp_path: Path) -> None:
    """A special token that is not EOS: the right texts are transformers', which is told of both."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = CHATML
    model: Any = LlamaForCausalLM.from_pretrained(small_llama(tmp_path))
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    prompter = Prompter(tokenizer, 200)
    example = Example("x", "Is it so?", "Yes", "s")
    (turn,), eos = prompter.ends, tokenizer.eos_token_id
    assert turn == tokenizer.convert_tokens_to_ids("<|im_end|>") and prompter.stop == ()
    assert prompter.encode(example).response[-2:] == (turn, eos)
    prompt = prompter.encode(example).prompt

    def plain(ends: list[int]) -> tuple[int, ...]:
        settings = GenerationConfig(max_new_tokens=9, eos_token_id=ends, pad_token_id=2)
        found = model.generate(torch.tensor([prompt]), generation_config=settings)
        return tuple(found[0, len(prompt) :].tolist())

    weight = model.lm_head.weight.data
    text = plain([eos])
    new = next(token for place, token in enumerate(text) if place and token not in text[:place])
    weight[[new, turn]] = weight[[turn, new]]  # the end of the turn is written there instead
    wanted = plain([turn, eos])
    assert wanted[-1] == turn and 1 < len(wanted) < 9
    joint, ones = JointModel(model, [None]), torch.ones(1, 1)
    for ends, answer in ((prompter.ends, wanted[:-1]), ((), plain([eos]))):
        settings = Decoding(max_new_tokens=9, ends=ends)
        assert generate(joint, [prompt], ones, settings, tokenizer, pad_id=2) == [answer]


def test_draws_follow_the_mixed_logits_and_the_seed() -> None:
    """2,000 draws of one token: their shares are the softmax of the mixed logits at that temperature."""
    backbone, count = BUILDERS["llama"](), 2000
    backbone.generation_config = GenerationConfig()  # nothing ends an answer
    joint = JointModel(backbone, crowd("llama"))
    weights = torch.tensor([[0.5, 0.4, 0.3]]).repeat(count, 1)
    decoding = Decoding(max_new_tokens=1, temperature=2.0, seed=1)
    some = generate(joint, [PROMPTS[0]] * count, weights, decoding, words(), pad_id=PAD)
    logits = joint.logits(torch.tensor([PROMPTS[0]]), torch.tensor([2]))[:, 0]
    wanted = (weights[0] @ logits / 2).softmax(0)
    found = torch.bincount(torch.tensor(some).flatten(), minlength=40) / count
    assert float((found - wanted).abs().max()) < 0.035
    again = generate(joint, [PROMPTS[0]] * count, weights, decoding, words(), pad_id=PAD)
    other = Decoding(max_new_tokens=1, temperature=2.0, seed=2)
    assert again == some
    assert generate(joint, [PROMPTS[0]] * count, weights, other, words(), pad_id=PAD) != some
    few = Decoding(max_new_tokens=1, temperature=2.0, top_k=2)
    drawn = generate(joint, [PROMPTS[0]] * count, weights, few, words(), pad_id=PAD)
    assert {token for (token,) in drawn} == set(wanted.topk(2).indices.tolist())
    sure = Decoding(max_new_tokens=1, temperature=2.0, top_p=1e-6)
    drawn = generate(joint, [PROMPTS[0]] * 5, weights[:5], sure, words(), pad_id=PAD)
    assert {token for (token,) in drawn} == {int(wanted.argmax())}


@pytest.mark.parametrize("temperature", [1e-30, 1e-45, 1e-300, 5e-324])
def test_the_smallest_temperatures_draw_the_likeliest_token(temperature: float) -> None:
    mixer = Mixer(torch.tensor([0, 0, 1]), torch.ones(3), 2, Decoding(temperature=temperature))
    scores = torch.tensor([[1e4, 2.0, 9.0], [1e4, 9.0, 2.0], [-3e3, -5.0, -5.0 - 1e-6]])
    found = mixer(torch.zeros(3, 1, dtype=torch.long), scores)
    assert found.argmax(dim=1).tolist() == [0, 0, 1]


def test_reported_pieces_make_the_text() -> None:
    pieces: dict[int, list[str]] = {}
    answers = written("llama", tell=lambda n, piece: pieces.setdefault(n, []).append(piece))
    for number, answer in enumerate(answers):
        assert "".join(pieces[number]) == words().decode(list(answer))
        assert len(pieces[number]) == len(answer), "in pieces, not at the end"


def test_nothing_to_write_and_members_that_all_weigh_nothing() -> None:
    joint = JointModel(BUILDERS["llama"](), crowd("llama"))
    decoding = Decoding(max_new_tokens=2)
    assert generate(joint, [], WEIGHTS[:0], decoding, words(), pad_id=PAD) == []
    (answer,) = generate(joint, PROMPTS[:1], torch.zeros(1, 3), decoding, words(), pad_id=PAD)
    assert len(answer) == 2


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"stop": [""]}]
)  # fmt: skip
def test_settings_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))}"):
        Decoding(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("strategy", [MoeRouting(), MoeMerging()])
def test_members_mixed_inside_the_layers_write_what_a_plain_loop_writes(
    kind: str, strategy: MoeRouting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row per prompt, its own weights; whole prompts and prompts read in chunks."""
    prompts = [*PROMPTS[:2], tuple(1 + n % 30 for n in range(29))]
    inside = LayerwiseModel(BUILDERS[kind](), crowd(kind), strategy.delta)
    by_hand = []
    for prompt, weights in zip(prompts, WEIGHTS, strict=False):
        ids = list(prompt)
        for _ in range(LENGTH):
            place = torch.tensor([len(ids) - 1])
            ids.append(int(inside.logits(torch.tensor([ids]), place, weights[None]).argmax()))
        by_hand.append(tuple(ids[len(prompt) :]))
    decoding = Decoding(max_new_tokens=LENGTH)
    for tokens in (10_000, 24):
        monkeypatch.setattr("elrea.method.ensemble.joint.TOKENS", tokens)
        assert inside.chunk(3, 29) == (None if tokens > 9000 else 8)
        inside.model.generation_config = GenerationConfig()  # nothing ends an answer
        assert generate(inside, prompts, WEIGHTS[:3], decoding, words(), pad_id=PAD) == by_hand
    assert len(set(by_hand)) > 1


def test_a_prompts_own_draws_do_not_hang_on_its_batch() -> None:
    joint, decoding = JointModel(BUILDERS["llama"](), crowd("llama")), Decoding(8, temperature=3.0)
    joint.model.generation_config = GenerationConfig()
    seeds = [11, 12, 11, 2**62 - 1]
    prompts, weights = [PROMPTS[0]] * 4, WEIGHTS[:1].repeat(4, 1)
    together = generate(joint, prompts, weights, decoding, words(), pad_id=PAD, seeds=seeds)
    alone = [
        generate(joint, [p], w[None], decoding, words(), pad_id=PAD, seeds=[s])[0]
        for p, w, s in zip(prompts, weights, seeds, strict=True)
    ]
    assert together == alone
    assert together[0] == together[2] and len(set(together)) == 3
