"""Chat templates that word a chat twice, think, strip, print the date, or have a marker that is no token.

The right text is always what transformers' `apply_chat_template` makes of the messages.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.data.wording import Wording
from elrea.data.wording_key import has_thoughts, wording_key
from elrea.errors import ConfigError
from tests.data.chat_templates import (
    CHANNELS,
    CLOSES,
    DATED,
    END,
    KEEPS_LAST,
    LOOP,
    ONE_LINE,
    OPEN,
    OPENS,
    PLAIN,
    SPACED,
    STRIPS,
    SYSTEM_LAST,
    THINKING,
    THOUGHT,
    TURN,
    With,
    asked,
)


def chat_of(example: Example, response: str | None = None) -> list[dict[str, str]]:
    turns = [*example.history, ("user", example.instruction)]
    turns += [("assistant", response)] if response is not None else []
    return [{"role": role, "content": text} for role, text in turns]


def whole(tokenizer: PreTrainedTokenizerBase, example: Example, **more: Any) -> str:
    """The template's own text of the chat with its response, without white space at the end."""
    chat = chat_of(example, example.response)
    return str(tokenizer.apply_chat_template(chat, tokenize=False, **more)).rstrip()


def prompt_of(tokenizer: PreTrainedTokenizerBase, example: Example, **more: Any) -> str:
    """The template's prompt for generation."""
    return str(
        tokenizer.apply_chat_template(
            chat_of(example), tokenize=False, add_generation_prompt=True, **more
        )
    )


def trained(prompter: Prompter, example: Example) -> str:
    """The text that the example is trained on, without the end of text."""
    encoded = prompter.encode(example)
    text = str(prompter.tokenizer.decode(list(encoded.prompt + encoded.response)))
    return text.removesuffix("</s>")


@pytest.mark.parametrize("kind", THINKING)
@pytest.mark.parametrize("thoughts", [False, True])
@pytest.mark.parametrize(
    "history", [(), (("user", "Hi"), ("assistant", "<think>\nA\n</think>\n\nB"))]
)
def test_the_trained_text_of_a_plain_answer_is_the_templates(
    kind: str, thoughts: bool, history: tuple[tuple[str, str], ...], templated: With
) -> None:
    tokenizer, example = templated(THINKING[kind]), asked(history=history)
    prompter = Prompter(tokenizer, 1000, Wording(thoughts=thoughts))
    assert trained(prompter, example) == whole(tokenizer, example)
    encoded = prompter.encode(example)
    ids = tokenizer(whole(tokenizer, example), add_special_tokens=False)["input_ids"]
    assert [*encoded.prompt, *encoded.response] == [*ids, tokenizer.eos_token_id]


@pytest.mark.parametrize("kind", ["keeps last", "one line"])
@pytest.mark.parametrize("thoughts", [False, True])
def test_the_trained_text_of_a_thought_is_the_templates(
    kind: str, thoughts: bool, templated: With
) -> None:
    tokenizer = templated(THINKING[kind])
    prompter = Prompter(tokenizer, 1000, Wording(thoughts=thoughts))
    for response in (THOUGHT, "<think>Two and two.</think>4"):
        example = asked(response)
        text = trained(prompter, example)
        assert text == whole(tokenizer, example)
        assert text.count("<think>") == text.count("</think>") == 1


@pytest.mark.parametrize("kind", ["opens", "closes"])
def test_a_thought_that_the_template_would_lose_follows_its_prompt_for_generation(
    kind: str, templated: With, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer, example = templated(THINKING[kind]), asked(THOUGHT)
    assert "Two and two" not in whole(tokenizer, example)
    before = prompt_of(tokenizer, example).rstrip()
    assert before.endswith("<think>")
    for thoughts in (False, True):
        prompter = Prompter(tokenizer, 1000, Wording(thoughts=thoughts))
        text = trained(prompter, example)
        assert text.startswith(before) and text.endswith("Two and two.\n</think>\n\n4" + END)
        assert text.count("<think>") == text.count("</think>") == 1
        with caplog.at_level(logging.WARNING):
            prompter.train([asked(), example])
        assert "leaves out or changes a part of 1 of 2 training responses, first x" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("kind", THINKING)
def test_prompts_end_as_before_a_plain_answer_or_where_a_thought_may_begin(
    kind: str, templated: With
) -> None:
    tokenizer = templated(THINKING[kind])
    plain, thinks = Prompter(tokenizer, 1000), Prompter(tokenizer, 1000, Wording(thoughts=True))
    example = asked()
    (open_prompt,) = thinks.routing([example])
    assert tokenizer.decode(list(open_prompt.prompt)) == prompt_of(tokenizer, example)
    (prompt,) = plain.routing([example])
    assert str(tokenizer.decode(list(prompt.prompt))) + "4" + END == whole(tokenizer, example)
    assert plain.encode(example).prompt == plain.test([example])[0][0].prompt == prompt.prompt
    choice = asked("4", choices=("4", "5"))
    for prompter in (plain, thinks):  # a choice has no thought
        assert prompter.test([choice])[0][0].prompt == prompt.prompt
        assert [tokenizer.decode(list(ids)) for ids in prompter.choices(choice)] == ["4", "5"]


def test_the_data_says_whether_responses_have_thoughts(templated: With) -> None:
    thought = asked(THOUGHT)
    for kind, template in THINKING.items():
        prompter = Prompter(templated(template), 1000)
        assert not has_thoughts(prompter, [asked(), asked("Do you think so?")])
        assert has_thoughts(prompter, [asked(), thought]) == (kind != "channels")
    assert not has_thoughts(Prompter(templated(PLAIN), 1000), [thought])
    off = Prompter(templated(KEEPS_LAST), 1000, Wording(use_chat_template=False))
    assert not has_thoughts(off, [thought])


def test_thinking_can_be_switched_off_by_the_templates_own_variable(templated: With) -> None:
    tokenizer, example = templated(KEEPS_LAST), asked()
    variables = {"enable_thinking": False}
    prompter = Prompter(tokenizer, 1000, Wording(chat_template_kwargs=variables, thoughts=True))
    wanted = prompt_of(tokenizer, example, **variables)
    assert wanted.endswith("</think>\n\n")
    assert tokenizer.decode(list(prompter.encode(example).prompt)) == wanted


@pytest.mark.parametrize(
    ("template", "example", "said"),
    [
        (OPENS, asked(), "ends with '<think>\\n', which its text of an answered chat does not have"),
        (SYSTEM_LAST, asked(history=(("system", "Be brief."),)), "in another way once they are answered"),
        (LOOP + "{% if m['role'] == 'user' %}" + TURN + "{% endif %}{% endfor %}" + OPEN + "{% endif %}",
         asked(), "does not print an assistant's last turn"),
        (KEEPS_LAST, asked(THOUGHT), "1 of 1 training responses, first x, begin otherwise"),
    ],
)  # fmt: skip
def test_texts_that_do_not_fit_together_are_said(
    template: str, example: Example, said: str, templated: With, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Prompter(templated(template), 1000).train([example])
    assert said in caplog.text and len(caplog.records) == 1
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        Prompter(templated(PLAIN), 1000).train([asked(), asked(THOUGHT)])
    assert not caplog.records


def test_a_system_prompt_that_an_answer_would_lose_is_kept(templated: With) -> None:
    tokenizer = templated(SYSTEM_LAST)
    example = asked(history=(("system", "Be brief."),))
    assert "Be brief." not in whole(tokenizer, example)
    encoded = Prompter(tokenizer, 1000).encode(example)
    assert tokenizer.decode(list(encoded.prompt)) == prompt_of(tokenizer, example)
    assert tokenizer.decode(list(encoded.response)) == " 4</s>"


def test_white_space_round_the_answer_is_the_templates(templated: With) -> None:
    tokenizer, example = templated(SPACED), asked()
    encoded = Prompter(tokenizer, 1000).encode(example)
    ids = tokenizer(whole(tokenizer, example), add_special_tokens=False)["input_ids"]
    assert [*encoded.prompt, *encoded.response] == ids
    tokenizer, example = templated(STRIPS), asked(" 4\n")
    assert trained(Prompter(tokenizer, 1000), example) == whole(tokenizer, example)


# The end of a turn.


def test_a_closing_marker_without_a_token_ends_a_generated_text(
    byte_level: PreTrainedTokenizerFast, templated: With
) -> None:
    unknown = PLAIN.replace("<|im_end|>", "<|done|>")
    assert Prompter(templated(unknown), 1000).stop == ("<|done|>",)
    assert Prompter(templated(PLAIN), 1000).stop == ()  # a special token, which is never shown
    assert Prompter(templated(SPACED), 1000).stop == ()  # the end of text
    assert Prompter(byte_level, 1000).stop == ()
    added = templated(unknown)
    added.add_tokens(["<|done|>"])  # a token that is not special, and is shown
    assert Prompter(added, 1000).stop == ("<|done|>",)


def test_special_tokens_that_close_a_turn_are_ends_of_a_generated_text(
    byte_level: PreTrainedTokenizerFast, templated: With
) -> None:
    tokenizer = templated(PLAIN)
    assert Prompter(tokenizer, 1000).ends == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    unknown = PLAIN.replace("<|im_end|>", "<|done|>")
    both = PLAIN.replace("<|im_end|>", "!<|im_end|></s>")
    assert Prompter(templated(both), 1000).ends == Prompter(tokenizer, 1000).ends
    assert Prompter(templated(both), 1000).stop == ("!",)
    for other in (templated(unknown), templated(SPACED), byte_level):
        assert Prompter(other, 1000).ends == ()


# The date.


def test_the_date_of_a_template_is_fixed(templated: With) -> None:
    tokenizer, example = templated(DATED), asked()
    for day, shown in (("2024-07-26", "26 Jul 2024"), ("2019-02-03", "03 Feb 2019")):
        encoded = Prompter(tokenizer, 1000, Wording(template_date=day)).encode(example)
        wanted = prompt_of(tokenizer, example, date_string=shown)
        assert tokenizer.decode(list(encoded.prompt)) == wanted
    assert Prompter(tokenizer, 1000).wording.template_date == "2024-07-26"
    assert "26 Jul 2024" not in prompt_of(tokenizer, example)  # the template's own date is back
    given = Wording(chat_template_kwargs={"date_string": "one day"})
    assert "Today: one day" in str(
        tokenizer.decode(list(Prompter(tokenizer, 1000, given).encode(example).prompt))
    )
    with pytest.raises(ConfigError, match=r"backbone.template_date=today: must be a date such as"):
        Wording(template_date="today")


# Keys of stages.


def test_a_key_says_what_was_mended_and_nothing_else(
    byte_level: PreTrainedTokenizerFast, templated: With
) -> None:
    plain, thought = asked(), asked(THOUGHT)
    chat = asked(history=(("user", "Hi there"), ("assistant", "B")))
    named = asked(history=(("user", "user"), ("assistant", "B")))

    def key(template: str, *examples: Example, **settings: Any) -> dict[str, Any]:
        prompter = Prompter(templated(template), 1000, Wording(**settings))
        return wording_key(prompter, examples)

    for template in (PLAIN, STRIPS, KEEPS_LAST, ONE_LINE, CHANNELS):
        assert key(template, plain, chat) == {}
        assert key(template, plain, chat, template_date="2025-01-01") == {}
    assert key(SYSTEM_LAST, plain, asked(history=(("system", "Hello"),))) == {}
    assert key(DATED, plain) == {"date": "2024-07-26"}
    assert key(DATED, plain, template_date="2025-01-01") == {"date": "2025-01-01"}
    variables = {"enable_thinking": False}
    assert key(PLAIN, plain, chat_template_kwargs=variables) == {"variables": variables}
    assert key(KEEPS_LAST, plain, thought) == {"responses": True}
    assert key(KEEPS_LAST, plain, thought, thoughts=True) == {"thoughts": True, "responses": True}
    assert key(OPENS, plain) == key(CLOSES, plain) == {"answered": True}
    assert key(SPACED, plain) == {"closing": " </s>"}
    for template in (PLAIN, STRIPS, KEEPS_LAST):
        assert key(template, plain, named) == {"words": True}
    off = Prompter(templated(DATED), 1000, Wording(use_chat_template=False))
    assert (
        wording_key(off, [plain, named]) == wording_key(Prompter(byte_level, 1000), [named]) == {}
    )
