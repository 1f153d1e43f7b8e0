"""How `elrea predict` reads its prompts: fields, roles, chats and published rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import export, merge, predict
from elrea.data.readers.rows import RowReader
from elrea.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": "a", "question": "b"},
            ":1: unknown field 'question'; rename it, or let it begin with _",
        ),
        (
            {"question": "a", "level": 3, "A": "b", "B": "c", "code": "x"},
            ":1: unknown fields 'question', 'level', 'A', 'B', 'code'; what is asked is read with --field"
            " instruction=question --field choices=A,B --ignore level (",
        ),
        (
            {"prompt": "a", "choises": ["b"]},
            "it begin with _ to have it ignored; did you mean choices?",
        ),
        (
            {"prompt": "a", "one": 1, "two": 2},
            ":1: unknown fields 'one', 'two'; rename them, or let them begin with _",
        ),
        (
            {"prompt": "a", "option a": "b", "option b": "c"},
            ":1: unknown fields 'option a', 'option b'; what is asked is read with --field 'choices=option a,option"
            " b'",
        ),
        ({"prompt": "a", "messages": []}, ":1: both messages and instruction"),
        ({"messages": [{"role": "narrator", "content": "b"}]}, "not the role 'narrator'"),
        ({"input": "a"}, ":1: no prompt; give `prompt`, `instruction` or `messages`"),
        ({"prompt": " \n", "input": " "}, ":1: the instruction is empty"),
        (
            {"prompt": "a", "instruction": "b"},
            ":1: 'instruction' is a second field for the instruction",
        ),
        ({"prompt": "a", "id": ["b"]}, ":1: the id must be a text or a number"),
        (
            {"prompt": None, "response": "b"},
            ":1: no prompt; give `prompt`, `instruction` or `messages`",
        ),
    ],
)
def test_a_field_that_may_matter_is_refused(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError) as error:
        predict.read_prompts(path)
    assert said in str(error.value)


def test_nulls_and_other_fields_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"instruction": null, "prompt": "hello", "id": null}\n'
        '{"prompt": "hello", "input": null, "id": 7, "response": "x", "source": "s", "_mine": {}}\n'
    )
    found = predict.read_prompts(path)
    assert [(name, prompt.instruction) for name, prompt in found] == [
        ("1", "hello"),
        ("7", "hello"),
    ]


@pytest.mark.parametrize("ignore", [["*"], ["right", "level"]])
def test_fields_have_the_roles_that_they_had_in_training(ignore: list[str], tmp_path: Path) -> None:
    """The prompt is the one of data=jsonl with the same fields."""
    row = {"Question text": "1 + 1?", "opts": ["1", "2"], "right": "2", "level": 3, "nr": "q7"}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    fields = {"instruction": "Question text", "choices": "opts", "id": "nr"}
    words = [*(f"--field={role}={name}" for role, name in fields.items())]
    parser = argparse.ArgumentParser()
    predict.add_fields(parser)
    given = parser.parse_args([*words, *(f"--ignore={name}" for name in ignore)])
    given.prompts = path
    ((name, prompt),) = predict.prompts_of_file(given, {"options": "letters"})
    reader = RowReader(fields | {"answer": "right"}, ["level"], options="letters")
    example = reader.read(row, "", "", 1)
    assert (name, prompt.instruction) == ("q7", example.instruction)
    assert (prompt.choices, prompt.options) == (example.choices, example.options)
    for command, typed in ((merge, ["--out"]), (export, ["--as", "peft", "--to"])):
        with pytest.raises(ConfigError, match=r"--field and --ignore .*; give --prompts too"):
            command.main([str(tmp_path), words[0], *typed, str(tmp_path / "x")])
    given.field = ["instruction"]
    with pytest.raises(DataError, match="--field instruction: write ROLE=NAME, as"):
        predict.prompts_of_file(given, {})
    with pytest.raises(
        DataError, match=r"'Question text'.*\(--field ROLE=NAME gives a field a role, --ign"
    ):
        predict.read_prompts(path)


@pytest.mark.parametrize(
    ("fields", "ignore", "name"),
    [
        ({"response": "answer"}, [], "q7"),
        ({"source": "id"}, [], "1"),
        ({}, ["id"], "1"),
    ],
)
def test_a_mapping_of_the_training_may_take_a_usual_name(
    fields: dict[str, str], ignore: list[str], name: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        json.dumps({"prompt": "1 + 1?", "choices": ["1", "2"], "answer": "2", "id": "q7"})
    )
    ((found, prompt),) = predict.read_prompts(path, "letters", fields, ignore)
    assert found == name and prompt.options == ("1", "2")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, {"answerKey": "B"}),
        ({"question": "Which?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}}, {"answerKey": "2"}),
        ({"question": {"stem": "Which?", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]}},
         {"answerKey": "B"}),
        ({"question": "Which?", "choices": '["a", "b"]'}, {"answerKey": "B"}),
        ({"question_stem": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, {"answerKey": "B"}),
        ({"question": "Which?", "question_concept": "x", "choices": {"text": ["a", "b"], "label": ["A", "B"]}},
         {"answerKey": "B"}),
        ({"ctx": "A man", "endings": ["a", "b"], "ind": 3}, {"label": 1}),
    ],
)  # fmt: skip
def test_published_rows_without_an_answer_have_their_prompt(
    row: dict[str, Any], answer: dict[str, Any], tmp_path: Path
) -> None:
    """It's that of the row with its answer in data=jsonl."""
    example = RowReader(options="letters").read(row | answer, "", "", 1)
    path = tmp_path / "p.jsonl"
    for given in ({}, answer, dict.fromkeys(answer, ""), dict.fromkeys(answer)):
        path.write_text(json.dumps(row | given))
        ((_, prompt),) = predict.read_prompts(path, "letters")
        assert prompt.instruction == example.instruction
        assert (prompt.choices, prompt.options) == (example.choices, example.options)


def test_a_role_that_there_is_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "Hi"}')
    with pytest.raises(DataError, match="foo=x: foo is no role of a field; the roles are instr"):
        predict.read_prompts(tmp_path / "p.jsonl", fields={"foo": "x"})


def test_chats_and_what_data_jsonl_reads(tmp_path: Path) -> None:
    """A last message of the assistant, as any response, is not part of the prompt."""
    chat = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Say one.")]
    messages = [{"role": role, "content": text} for role, text in chat]
    shared = [
        {"from": {"user": "human", "assistant": "gpt"}.get(r, r), "value": t} for r, t in chat
    ]
    path = tmp_path / "p.json"
    rows: list[dict[str, Any]] = [
        {"messages": messages},
        {"messages": [*messages, {"role": "assistant", "content": ""}]},
        {"conversations": [*shared, {"from": "gpt", "value": "One."}]},
        {
            "system": "Be brief.",
            "history": [["Hi", "Yes?"]],
            "instruction": "Say one.",
            "output": "",
        },
        {"prompt": messages, "completion": [{"role": "assistant", "content": "One."}]},
    ]
    path.write_text(json.dumps(rows))
    found = predict.read_prompts(path)
    assert [name for name, _ in found] == ["1", "2", "3", "4", "5"]
    for _, prompt in found:
        assert (prompt.history, prompt.instruction) == (tuple(chat[:3]), "Say one.")
        assert prompt.response == ""


@pytest.mark.parametrize("last", [[], [{"role": "assistant", "content": "No.", "weight": 0}]])
def test_a_chats_last_user_turn_is_asked_whatever_training_learns(
    last: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Training leaves out what stands after the last answer with loss."""
    texts = [("user", "Hi"), ("assistant", "Yes?"), ("user", "Say one.")]
    row = {"messages": [*({"role": role, "content": text} for role, text in texts), *last]}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    ((_, asked),) = predict.read_prompts(path)
    assert (asked.history, asked.instruction) == (tuple(texts[:2]), "Say one.")
    learned = RowReader().read(row, "p.jsonl:1", "p.jsonl", 1)
    assert (learned.history, learned.instruction, learned.response) == ((), "Hi", "Yes?")


@pytest.mark.parametrize(
    ("row", "fields", "prompt"),
    [
        (
            {"response": "what?", "gold": "x"},
            {"instruction": "response", "response": "gold"},
            "what?",
        ),
        ({"answer": "what?", "k": 0}, {"instruction": "answer", "answer": "k"}, "what?"),
        ({"instruction": "Do", "instances": [{"input": "i", "output": "o"}]}, {}, "Do\n\ni"),
    ],
)
def test_prompts_are_those_of_training(
    row: dict[str, Any], fields: dict[str, str], prompt: str, tmp_path: Path
) -> None:
    """Fields that bear the usual name of another one, and a task with its inputs in a list."""
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    ((_, read),) = predict.read_prompts(path, "text", fields)
    assert read.instruction == prompt


def test_several_inputs_of_a_task_are_a_prompt_each(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    inputs = [{"input": text, "output": "o"} for text in "ij"]
    path.write_text(json.dumps({"id": "s", "instruction": "Do", "instances": inputs}))
    assert [(n, e.instruction) for n, e in predict.read_prompts(path)] == [
        ("s/0", "Do\n\ni"), ("s/1", "Do\n\nj"),
    ]  # fmt: skip


def test_a_field_that_no_row_has_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("q,A,B,C\nx,1,2,3\n")
    with pytest.raises(
        DataError, match="no field 'Q' for instruction=Q; the row has 'q', 'A', 'B'"
    ):
        predict.read_prompts(path, "text", {"instruction": "Q"})
    given = {"instruction": "q", "choices": ["A", "B", "D"]}
    with pytest.raises(DataError, match="no row has the column 'D', which --field choices names"):
        predict.read_prompts(path, "text", given, ["*"])
