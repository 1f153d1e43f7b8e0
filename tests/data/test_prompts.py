"""Prompts as text and as token ids, in the plain layout and with a chat template."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elrea.data.examples import Example
from elrea.data.prompts import Encoded, Prompter
from elrea.data.wording import Wording
from elrea.errors import ConfigError, DataError

PLAIN = "About things.\n\nWhy?\nAnswer: A\n\nWho?\nAnswer: B\n\nWhat is it?\nA. x\nB. y\nAnswer:"
BARE = "About things.\n\nWhat is it?\nA. x\nB. y\nAnswer:"
CHAT = Example(
    id="chat",
    instruction="And twice?",
    response="Eight.",
    source="s",
    history=(("system", "Be brief."), ("user", "yes"), ("assistant", "yes, four.")),
)


def free(text: str, response: str = "B") -> Example:
    return Example(id="free", instruction=text, response=response, source="s")


def words(prompter: Prompter, encoded: Encoded) -> str:
    """The text of the tokens that carry the loss, with a bar between separate parts."""
    assert encoded.loss_mask is not None and len(encoded.loss_mask) == len(encoded.prompt)
    text, last = "", True
    for token, flag in zip(encoded.prompt, encoded.loss_mask, strict=True):
        text += str(prompter.tokenizer.decode([token])) if flag else "|" * last
        last = flag
    return text.strip("|")


def test_the_plain_layout(byte_level, question):
    prompter = Prompter(byte_level, 1000)
    encoded = prompter.encode(question)
    assert encoded.prompt[0] == byte_level.bos_token_id
    assert byte_level.decode(encoded.prompt[1:]) == PLAIN
    assert encoded.prompt.count(byte_level.bos_token_id) == 1
    assert byte_level.decode(encoded.response) == " B</s>"
    assert encoded.loss_mask is None
    assert encoded.length == len(encoded.prompt) + len(encoded.response)
    bare = prompter.encode(replace(question, shots=()), end=False)
    assert byte_level.decode(bare.prompt[1:]) == BARE
    assert byte_level.decode(bare.response) == " B"


def test_an_answer_letter_is_one_token(byte_level, question):
    choices = Prompter(byte_level, 1000).choices(question)
    assert [byte_level.decode(ids) for ids in choices] == [" A", " B"]
    assert [len(ids) for ids in choices] == [1, 1]


def test_a_response_is_tokenised_as_continuation_of_the_prompt(byte_level, question):
    prompter = Prompter(byte_level, 1000)
    for example in (question, free("Say it\n", "What is it?"), free("Say", "déjà vu\n\n  x")):
        encoded = prompter.encode(example, end=False)
        text = byte_level.decode(encoded.prompt + encoded.response, skip_special_tokens=True)
        joint = byte_level(text, add_special_tokens=False)["input_ids"]
        assert encoded.prompt[1:] + encoded.response == tuple(joint)


def test_one_separator_between_prompt_and_response(byte_level):
    prompter = Prompter(byte_level, 1000)
    for text, expected in (("Q:", "Q: B"), ("Q: ", "Q: B"), ("Q:\n", "Q:\nB"), ("\n", "\nB")):
        encoded = prompter.encode(free(text), end=False)
        assert byte_level.decode(encoded.prompt[1:] + encoded.response) == expected


def test_a_response_is_tokenised_alone_if_the_tokenizer_merges_it_with_the_prompt(merging):
    merged = merging("Answer: A", add_special_tokens=False)["input_ids"]
    alone = merging("Answer:", add_special_tokens=False)["input_ids"]
    assert merged[: len(alone)] != alone  # the tokenizer merges
    prompter = Prompter(merging, 1000)
    example = replace(free("Answer:"), choices=("A", "B"))
    encoded = prompter.encode(example, end=False)
    assert encoded.prompt == (merging.bos_token_id, *alone)
    assert encoded.response == tuple(merging(" B", add_special_tokens=False)["input_ids"])
    assert prompter.choices(example)[1] == encoded.response


def test_a_choice_begins_the_response(byte_level, merging, chatml, question):
    for tokenizer in (byte_level, merging, chatml):
        prompter = Prompter(tokenizer, 1000)
        response = prompter.encode(question).response
        choice = prompter.choices(question)[1]
        assert response[: len(choice)] == choice
        assert response[len(choice) :][-1] == tokenizer.eos_token_id


def test_training_drops_examples_that_are_too_long(byte_level):
    long, short = free("word " * 50), free("word")
    long = replace(long, id="long")
    length = Prompter(byte_level, 1000).encode(long).length
    kept, dropped = Prompter(byte_level, length).train([long, short])
    assert [encoded.id for encoded in kept] == ["long", "free"] and dropped == []
    kept, dropped = Prompter(byte_level, length - 1).train([long, short])
    assert [encoded.id for encoded in kept] == ["free"] and dropped == ["long"]


def test_a_long_test_prompt_loses_its_last_shots_first(byte_level, question):
    whole = Prompter(byte_level, 1000)
    needs = [
        len(whole.encode(replace(question, shots=question.shots[:k])).prompt) + 1 for k in range(3)
    ]
    for limit, shots in ((needs[2], 2), (needs[2] - 1, 1), (needs[1] - 1, 0), (needs[0], 0)):
        encoded, too_long = Prompter(byte_level, limit).test([question])
        assert too_long == []
        fitting = whole.encode(replace(question, shots=question.shots[:shots]))
        assert encoded[0] == replace(fitting, shots=shots)
    other = free("Q")
    encoded, too_long = Prompter(byte_level, needs[0] - 1).test([question, other])
    assert too_long == ["q"]
    assert [e.id for e in encoded] == ["q", "free"]
    assert encoded[0].prompt == () and encoded[1].prompt


def test_room_is_left_for_the_generated_text(byte_level, question):
    limit = Prompter(byte_level, 1000).encode(question).length
    full, _ = Prompter(byte_level, limit).test([question], room=2)
    less, _ = Prompter(byte_level, limit).test([question], room=3)
    assert len(less[0].prompt) < len(full[0].prompt)


def test_routing_prompts_are_header_and_instruction(byte_level, question):
    routed = Prompter(byte_level, 1000).routing([question])[0]
    assert byte_level.decode(routed.prompt[1:]) == BARE
    assert routed.response == () and routed.loss_mask is None
    cut = Prompter(byte_level, 7).routing([question])[0]
    assert cut.prompt == routed.prompt[:7]


def test_a_plain_chat_and_its_loss_mask(byte_level):
    prompter = Prompter(byte_level, 1000)
    encoded = prompter.encode(CHAT)
    text = byte_level.decode(encoded.prompt[1:])
    assert text == "Be brief.\n\nyes yes, four.\n\nAnd twice?"
    assert words(prompter, encoded) == "yes|And twice?"
    assert prompter.routing([CHAT])[0].loss_mask == encoded.loss_mask


def test_a_truncated_prompt_without_users_words_has_no_loss_mask(byte_level):
    assert Prompter(byte_level, 4).routing([CHAT])[0].loss_mask is None


def test_the_chat_template(chatml, question):
    prompter = Prompter(chatml, 1000)
    encoded = prompter.encode(question)
    turn = "<|im_start|>{}\n{}<|im_end|>\n"
    expected = (
        turn.format("user", "About things.\n\nWhy?\nAnswer:")
        + turn.format("assistant", "A")
        + turn.format("user", "Who?\nAnswer:")
        + turn.format("assistant", "B")
        + turn.format("user", "What is it?\nA. x\nB. y\nAnswer:")
        + "<|im_start|>assistant\n"
    )
    assert chatml.decode(encoded.prompt) == expected  # the template writes no BOS
    assert chatml.decode(encoded.response) == "B<|im_end|></s>"
    assert [chatml.decode(ids) for ids in prompter.choices(question)] == ["A", "B"]
    routed = prompter.routing([question])[0]
    assert chatml.decode(routed.prompt).startswith("<|im_start|>user\nAbout things.\n\nWhat is it?")


def test_the_loss_mask_of_a_chat_template(chatml):
    prompter = Prompter(chatml, 1000)
    assert words(prompter, prompter.encode(CHAT)) == "yes|And twice?"


def test_a_system_turn_is_put_into_the_users_turn_if_the_template_has_none(gemma):
    prompter = Prompter(gemma, 1000)
    encoded = prompter.encode(CHAT)
    text = gemma.decode(encoded.prompt)
    assert text.startswith("<s><|im_start|>user\nBe brief.\n\nyes<|im_end|>")
    assert text.count("<s>") == 1
    assert words(prompter, encoded) == "yes|And twice?"


def test_turns_that_the_template_refuses_are_reported(gemma):
    example = replace(CHAT, history=(("user", "one"), ("user", "two")))
    with pytest.raises(DataError, match=r"chat: the chat template refuses .*must alternate"):
        Prompter(gemma, 1000).encode(example)


def test_text_of_the_template_before_the_answer_is_part_of_the_prompt(chatml, question):
    """Some templates begin an answer with an empty thought, some with a space."""
    thought = "<|im_start|>assistant\n{{ '<think></think> ' if m['content'] }}"
    chatml.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}" + thought + "{{ m['content'] }}"
        "{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoded = Prompter(chatml, 1000).encode(replace(question, shots=()))
    assert chatml.decode(encoded.prompt).endswith("<|im_start|>assistant\n<think></think>")
    assert chatml.decode(encoded.response) == " B</s>"


def test_the_chat_template_can_be_switched_off_but_not_on_if_missing(byte_level, chatml, question):
    assert Prompter(chatml, 1000).chat and not Prompter(byte_level, 1000).chat
    off = Prompter(chatml, 1000, Wording(use_chat_template=False))
    assert off.encode(question) == Prompter(byte_level, 1000).encode(question)
    with pytest.raises(ConfigError, match="no chat template"):
        Prompter(byte_level, 1000, Wording(use_chat_template=True))


def test_a_length_must_be_positive(byte_level):
    with pytest.raises(ConfigError, match="max_length=0"):
        Prompter(byte_level, 0)


def test_the_real_tokenizer(tiny_stories, question):
    """It has a token for ": ", so the letter is tokenised alone."""
    prompter = Prompter(tiny_stories, 512)
    encoded = prompter.encode(question)
    assert encoded.prompt[0] == tiny_stories.bos_token_id
    assert encoded.response[-1] == tiny_stories.eos_token_id
    assert tiny_stories.decode(encoded.prompt[1:]) == PLAIN
    choices = prompter.choices(question)
    assert len(set(choices)) == 2 and len(set(map(len, choices))) == 1
    assert [tiny_stories.decode(ids).strip() for ids in choices] == ["A", "B"]
    joined = prompter.encode(free("Tell.\n", "Bob ran."), end=False)
    text = tiny_stories.decode(joined.prompt[1:] + joined.response)
    assert text == "Tell.\nBob ran."
    assert prompter.encode(CHAT).loss_mask is not None
