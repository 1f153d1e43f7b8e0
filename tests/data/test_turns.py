"""What the messages of a chat say beside role and text: weights, tool calls, reasoning, unknown keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from elrea.data.corpus import Corpus
from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.rows import RowReader
from elrea.data.sources.less import Less
from elrea.data.sources.oasst import Oasst
from elrea.errors import DataError
from tests.data.conftest import Write

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
AGAIN = {"role": "user", "content": "Again"}
SECOND = {"role": "assistant", "content": "Hello again"}
CHAT = [USER, ANSWER, AGAIN, SECOND]


def read(write: Write, row: Any, **settings: Any) -> Example:
    path = write("x.jsonl", [row])
    return read_files({"data.train": str(path)}, RowReader(**settings), Drops())["data.train"][0]


def weighed(*weights: Any, key: str = "weight") -> dict[str, Any]:
    """The chat of two answers with a weight each; None for none."""
    answers = [
        {**turn, key: weight} if weight is not None else turn
        for turn, weight in zip((ANSWER, SECOND), weights, strict=True)
    ]
    return {"messages": [USER, answers[0], AGAIN, answers[1]]}


@pytest.mark.parametrize(
    ("weights", "turns", "response", "loss"),
    [
        ((None, None), "last", "Hello again", ()),
        ((None, None), "all", "Hello again", (None, True)),
        ((1, 1), "last", "Hello again", ()),
        ((1, 1), "all", "Hello again", (None, True)),
        ((1.0, 0.0), "all", "Hello", ()),  # the last answer that is learned is the response
        ((1, 0), "last", "Hello", ()),
        ((None, 0), "last", "Hello", ()),
        ((0, 1), "last", "Hello again", (None, False)),
        ((0, None), "all", "Hello again", (None, False)),
    ],
)
def test_weights_are_obeyed(write, weights, turns, response, loss):
    example = read(write, weighed(*weights), turns=turns)
    assert (example.response, example.turn_loss) == (response, loss)
    assert example.instruction == ("Again" if response == "Hello again" else "Hi")
    assert len(example.history) == len(loss or example.history)


@pytest.mark.parametrize("key", ["train", "training", "train_on_turn", "loss"])
def test_flags_of_other_trainers_are_weights(write, key):
    assert read(write, weighed(False, True, key=key)).turn_loss == (None, False)
    assert read(write, weighed(True, False, key=key)).response == "Hello"


def test_sharegpt_weights(write):
    """As SlimOrca has them: floats, 0 for the user, null for the system."""
    turns = [
        {"from": "system", "value": "Be kind.", "weight": None},
        {"from": "human", "value": "Hi", "weight": 0.0},
        {"from": "gpt", "value": "Hello", "weight": 0.0},
        {"from": "human", "value": "Again", "weight": 0.0},
        {"from": "gpt", "value": "Hello again", "weight": 1.0},
    ]
    assert read(write, {"conversations": turns}, turns="all").turn_loss == (None, None, False)


def test_the_turns_of_other_forms(write):
    row: dict[str, Any] = {
        "instruction": "Again",
        "output": "Yes",
        "history": [["Hi", "Hello"]],
        "system": "Be.",
    }
    assert read(write, row, turns="all").turn_loss == (None, None, True)
    assert read(write, row).turn_loss == ()
    # TRL: a prompt's own turns are given, and only the completion's are learned.
    row = {"prompt": [USER, ANSWER, AGAIN], "completion": [SECOND]}
    assert read(write, row, turns="all").turn_loss == ()
    row = {"prompt": [USER], "completion": [ANSWER, AGAIN, SECOND]}
    assert read(write, row, turns="all").turn_loss == (None, True)
    row = {"prompt": "Hi", "completion": [ANSWER, AGAIN, SECOND]}
    assert read(write, row, turns="all").turn_loss == (None, True)
    assert read(write, {"messages": CHAT, "system": "Be."}, turns="all").turn_loss == (
        None, None, True,
    )  # fmt: skip


@pytest.mark.parametrize("empty", ["", " \n", "<|endoftext|>"])
def test_an_empty_answer_is_not_learned(write, empty):
    chat = [USER, {**ANSWER, "content": empty}, AGAIN, SECOND]
    assert read(write, {"messages": chat}, turns="all").turn_loss == ()
    longer = [*chat, USER, ANSWER]
    loss = (None, None, None, True)
    assert read(write, {"messages": longer}, turns="all").turn_loss == loss
    row = {"instruction": "Again", "output": "Yes", "history": [["Hi", empty]]}
    assert read(write, row, turns="all").turn_loss == ()
    weighed = [USER, {**ANSWER, "content": empty, "weight": 0}, AGAIN, SECOND]
    assert read(write, {"messages": weighed}, turns="all").turn_loss == (None, False)


def test_sources_of_chats_have_the_setting(tmp_path, published):
    threads = Oasst(root=str(published("oasst")), turns="all").read().train
    assert any(example.turn_loss for example in threads)
    for example in threads:
        wanted = tuple(True if role == "assistant" else None for role, _ in example.history)
        assert example.turn_loss == (wanted if True in wanted else ())
    plain = Oasst(root=str(published("oasst"))).read().train
    assert [e.id for e in plain] == [e.id for e in threads] and not any(e.turn_loss for e in plain)
    rows = Less(root=str(published("less")), turns="all").read().train
    assert all(bool(e.turn_loss) == any(r == "assistant" for r, _ in e.history) for e in rows)


def test_a_fingerprint_changes_with_what_is_learned_alone(write):
    def key(**settings: Any) -> str:
        train = (replace(read(write, {"messages": CHAT}, **settings), id="x/x.jsonl:1"),)
        return Corpus("x", train, (), train).fingerprint("train")

    # Of the code before turns could be chosen.
    assert key() == "422d8ece1de03a072a7b0257c0350dac0ccd58623dfa9ab0fb04b42f40e12198"
    assert key(turns="all") != key()
    one = (read(write, {"instruction": "Hi", "output": "Hello"}, turns="all"),)
    two = (read(write, {"instruction": "Hi", "output": "Hello"}),)
    assert Corpus("x", one, (), one).fingerprint("train") == Corpus("x", two, (), two).fingerprint(
        "train"
    )


CALL = [{"type": "function", "function": {"name": "weather", "arguments": "{}"}}]
REFUSED: list[tuple[Any, str, str]] = [
    (weighed(1, 0.5), "the weight of a message must be 0 or 1, not 0.5; correct it", "weight other than 0 or 1"),
    (weighed(1, "1"), "the weight of a message must be 0 or 1, not '1'", "weight other than 0 or 1"),
    (weighed(1, 1, key="train"), "the train of a message must be true or false, not 1", "train other than"),
    (weighed(0, 0), "every assistant turn has the weight 0", "every assistant turn has the weight 0"),
    ({"messages": [USER, {**ANSWER, "weight": 0, "train": True}]}, "weight and train of a message say different", ""),
    ({"messages": [{**USER, "weight": 1}, ANSWER]}, "the weight of a user turn is 1: only", "a user turn that is to"),
    ({"messages": [USER, {**ANSWER, "tool_calls": CALL}]},
     "the key 'tool_calls' of a message: tool calls are not read; remove it, or skip it with data.ignore=[tool_calls]",
     "key 'tool_calls' in a message"),
    ({"messages": [USER, {**ANSWER, "function_call": {"name": "f"}}]}, "the key 'function_call' of a message", "key"),
    ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": CALL}]}, "the key 'tool_calls'", "key"),
    ({"messages": [USER, {"role": "tool", "content": "8"}, ANSWER]},
     "a message with the role 'tool': tool calls are not read", "role 'tool'"),
    ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "{}"},
                        {"from": "observation", "value": "8"}, {"from": "gpt", "value": "8"}]},
     "a message with the role 'function_call': tool", "role 'function_call'"),
    ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "observation", "value": "8"}]},
     "a message with the role 'observation'", "role 'observation'"),
    ({"messages": CHAT, "tools": [{"type": "function"}]}, "the field 'tools': the tools of a chat", "field 'tools'"),
    ({"messages": [USER, {**ANSWER, "reasoning_content": "Hm."}]}, "the key 'reasoning_content' of a message", "key"),
    ({"messages": [USER, {**ANSWER, "thinking": "Hm."}]}, "the key 'thinking' of a message: write", "key 'thinking'"),
    ({"messages": [{**USER, "images": ["a.png"]}, ANSWER]}, "the key 'images' of a message: a message may", "key"),
    ({"messages": [USER, {**ANSWER, "wieght": 0}]},
     "unknown key 'wieght' in a message; did you mean weight?; remove it, or skip it with data.ignore=[wieght]", "key"),
    ({"messages": [USER, {**ANSWER, "train_detail": [{"begin_offset": 0}]}]}, "unknown key 'train_detail' in", "key"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"a": 1}}]}, ANSWER]},
     "unknown key 'cache_control' in a content part", "key 'cache_control' in a content part"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, ANSWER]},
     "a content part of type 'input_audio'; a message may have texts only", "content part of type 'input_audio'"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said", "kind"), REFUSED)
def test_what_is_not_read_is_refused_by_name_and_counted(write, row, said, kind):
    good = {"instruction": "Hi", "output": "Hello"}
    path = write("x.jsonl", [good, row])
    with pytest.raises(DataError) as caught:
        read_files({"data.train": str(path)}, RowReader(), Drops())
    assert str(caught.value).startswith(f"{path}:2: {said}") and "\n" not in str(caught.value)
    drops = Drops()
    kept = read_files({"data.train": str(path)}, RowReader(), drops, "drop")["data.train"]
    (line,) = drops.lines()
    assert len(kept) == 1 and line.startswith(f"x: 1 dropped from train: {kind}")
    assert line.endswith("x.jsonl:2)")


def test_hints_about_keys_lead_somewhere(write):
    """What a message has beside its text is skipped where the settings name it."""
    messages = [USER, {**ANSWER, "tool_calls": CALL, "name": "Bob"}]
    assert read(write, {"messages": messages}, ignore=["tool_calls", "name"]).response == "Hello"
    assert read(write, {"messages": [USER, {**ANSWER, "id": 3}]}, ignore=["*"]).response == "Hello"
    with pytest.raises(DataError, match="tool_calls"):  # a star is for keys that nobody knows
        read(write, {"messages": messages}, ignore=["*"])
    row = {"messages": CHAT, "tools": [{"type": "function"}]}
    assert read(write, row, ignore=["tools"]).response == "Hello again"


def test_empty_keys_are_no_content(write):
    """Tables of chats fill the keys that a message does not have."""
    empty: dict[str, Any] = {
        "tool_calls": None,
        "function_call": {},
        "name": "",
        "refusal": None,
        "annotations": [],
    }
    row: dict[str, Any] = {
        "messages": [{**turn, **empty, "weight": None} for turn in CHAT],
        "tools": None,
    }
    assert read(write, row) == read(write, {"messages": CHAT})
    parts: list[Any] = [{"type": "text", "text": "Hi", "annotations": []}]
    row = {"messages": [{"role": "user", "content": parts}, ANSWER]}
    assert read(write, row).instruction == "Hi"


def test_two_users_in_a_row_are_kept(write):
    example = read(write, {"messages": [USER, AGAIN, ANSWER]}, turns="all")
    assert (example.instruction, example.history) == ("Again", (("user", "Hi"),))


def test_plain_text(write):
    example = read(write, {"text": " Once upon a time.\n", "id": 7, "source": "tales"})
    assert example.plain_text and (example.instruction, example.response) == (
        " Once upon a time.\n", "",
    )  # fmt: skip
    assert (example.id.rpartition(":")[2], example.source) == ("7", "tales")
    named = read(write, {"story": "Once."}, fields={"text": "story"})
    assert named.plain_text and named.instruction == "Once."
    # Alpaca's own file has the prompt once more.
    row = {"instruction": "Hi", "output": "Hello", "text": "Hi Hello"}
    assert read(write, row, ignore=["text"]).response == "Hello"
