"""Rows of published layouts, and hints for files that another data source reads."""

from __future__ import annotations

from typing import Any

import pytest

from elrea.data.examples import Example
from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.oasst import Oasst
from elrea.errors import DataError
from tests.data import published as files
from tests.data.reading import fails, read


def read_row(write, row: Any, **settings: Any) -> Example:
    return read(write("x.jsonl", [row]), **settings)[0]


MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
ARC = {"id": "q", "question": "Which?", "answerKey": "2",
       "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}}  # fmt: skip
HELLASWAG = {
    "ind": 4, "activity_label": "Work", "ctx_a": "A man", "ctx_b": "he", "ctx": "A man he", "source_id": "s",
    "endings": ["x", "y", "z", "w"], "split": "train", "split_type": "i", "label": "2",
}  # fmt: skip
KIND = ("system", "Be kind.")


@pytest.mark.parametrize(
    ("row", "instruction", "response", "history"),
    [
        # LLM-Adapters: the response has the answer
        ({"instruction": "Is it?", "input": "", "output": "the correct answer is true", "answer": "true"},
         "Is it?", "the correct answer is true", ()),
        # ShareGPT
        ({"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"},
                            {"from": "gpt", "value": "Hello"}]}, "Hi", "Hello", (KIND,)),
        ({"system": "Be kind.", "conversations": [{"from": "human", "value": "Hi"},
          {"from": "gpt", "value": "Hello"}]}, "Hi", "Hello", (KIND,)),
        # LLaMA-Factory
        ({"instruction": "Hi", "input": "", "output": "Hello", "system": "Be kind.", "history": [["a", "b"]]},
         "Hi", "Hello", (KIND, ("user", "a"), ("assistant", "b"))),
        ({"instruction": "Hi", "output": "Hello", "system": "", "history": []}, "Hi", "Hello", ()),
        ({"instruction": "Hi", "output": "Hello", "system": None, "history": None}, "Hi", "Hello", ()),
        # OpenAI
        ({"messages": [{"role": "developer", "content": "Be kind."}, *MESSAGES]}, "Hi", "Hello", (KIND,)),
        ({"messages": [{"role": role, "content": [{"type": "text", "text": text}, {"type": "text", "text": "!"}]}
                       for role, text in (("user", "Hi"), ("assistant", "Hello"))]}, "Hi\n!", "Hello\n!", ()),
        # TRL
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, "Hi", "Hello", ()),
        ({"prompt": [{"role": "system", "content": "Be kind."}, MESSAGES[0]], "completion": "Hello"},
         "Hi", "Hello", (KIND,)),
        ({"prompt": "Hi", "completion": MESSAGES[1:]}, "Hi", "Hello", ()),
        ({"prompt": [*MESSAGES, MESSAGES[0]], "completion": MESSAGES[1:]}, "Hi", "Hello",
         (("user", "Hi"), ("assistant", "Hello"))),
        # multiple choice
        (ARC, "Which?", "b", ()),
        ({"id": "q", "question": {"stem": "Which?", "choices": [{"text": "a", "label": "A"},
          {"text": "b", "label": "B"}]}, "answerKey": "B"}, "Which?", "b", ()),
        ({"id": "q", "question_stem": "Which?", "choices": ARC["choices"], "answerKey": "3"}, "Which?", "c", ()),
        ({"id": "q", "question": "Which?", "question_concept": "x", "choices": ARC["choices"], "answerKey": "1"},
         "Which?", "a", ()),
        ({"id": "q", "question": "Which?", "choices": ["a", "b"], "answerKey": "B"}, "Which?", "b", ()),
        (HELLASWAG, "A man he", "z", ()),
        ({"ctx": "A man", "endings": ["x", "y"], "label": 0}, "A man", "x", ()),
        # self-instruct
        ({"id": "seed_task_0", "name": "n", "instruction": "Add.", "is_classification": False,
          "instances": [{"input": "1 and 1", "output": "2"}]}, "Add.\n\n1 and 1", "2", ()),
    ],
)  # fmt: skip
def test_layouts(write, row, instruction, response, history):
    example = read_row(write, row, options="text")
    assert (example.instruction, example.response, example.history) == (
        instruction,
        response,
        history,
    )


def test_fields_of_the_layouts_that_name_something(write):
    example = read_row(write, HELLASWAG)
    assert (example.id.rpartition(":")[2], example.category) == ("4", "Work")
    assert (example.choices, example.options) == (("A", "B", "C", "D"), ("x", "y", "z", "w"))
    assert read_row(write, ARC).id.endswith(":q")
    row = {**ARC, "question_concept": "colours"}
    assert read_row(write, row).category == "colours"


def test_a_seed_task_of_several_instances_becomes_several_examples(write):
    task = {
        "id": "t",
        "instruction": "Add.",
        "instances": [{"input": str(i), "output": "2"} for i in range(2)],
    }
    examples = read(write("x.jsonl", [task, {**task, "id": None}]))
    assert [e.id.rpartition(":")[2] for e in examples] == ["t/0", "t/1", "2/0", "2/1"]
    assert [e.instruction for e in examples] == ["Add.\n\n0", "Add.\n\n1"] * 2


def test_a_row_with_a_question_of_its_own_is_none_of_the_layouts(write):
    """Its other fields are unknown, and not dropped in silence."""
    for row in (ARC, HELLASWAG):
        path = write("x.jsonl", [{**row, "instruction": "Choose.", "output": "a"}])
        assert "x.jsonl:1: unknown field(s) " in fails(path)
    task = {"instruction": "Add.", "output": "2", "instances": []}
    assert "unknown field(s) 'instances'" in fails(write("x.jsonl", [task]))


def test_names_that_the_config_gives_win_over_a_layout(write):
    row = {"question": "Which?", "choices": ["a", "b"], "answerKey": "B"}
    fields = {"instruction": "question", "answer": "answerKey"}
    assert read_row(write, row, fields=fields).response == "b"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ARC, "answerKey": "D"}, "answerKey 'D' is not one of the labels ['1', '2', '3']"),
        ({**ARC, "choices": ["a", "b"]}, "answerKey '2' is not one of the labels ['A', 'B']"),
        ({**ARC, "choices": 3}, "choices must have as many labels as texts"),
        ({**ARC, "choices": {"text": ["a"], "label": []}}, "choices must have as many labels as texts"),
        ({**HELLASWAG, "label": ""}, "label '' is not the index of an ending; read a split that has labels"),
        ({**HELLASWAG, "label": "9" * 5000}, "label '9"),
        ({**HELLASWAG, "label": "7"}, "the answer 7 is not one of the 4 choices"),
        ({"instruction": "a", "instances": []}, "instances must be a list of objects with input and output"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "history must be a list of [instruction, resp"),
        ({"instruction": "a", "output": "b", "history": "a"}, "history must be a list of [instruction, resp"),
        ({"messages": MESSAGES, "history": [["a", "b"]]}, "both messages and history; keep one of them"),
        ({"prompt": MESSAGES[:1], "completion": "b", "input": "c"}, "both a list of messages and input; keep one"),
        ({"messages": [{"role": "system", "content": "a"}, *MESSAGES], "system": "b"},
         "both a field 'system' and a system turn; keep one of them"),
        ({"messages": [*MESSAGES, {"role": "narrator", "content": "a"}]}, "a message needs a role (system, user, as"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "a content part of type 'image_url'; a message may have texts only"),
    ],
)  # fmt: skip
def test_rows_of_these_layouts_that_are_refused(write, row, said):
    assert fails(write("x.jsonl", [row])).startswith(f"x.jsonl:1: {said}")


def test_a_message_export_with_nested_replies(tmp_path, published):
    """The hint of data=jsonl leads to data=oasst, which reads the replies inside a message."""
    nested = [tree["prompt"] for tree in files.trees()]
    for message in nested:
        del message["message_tree_id"]
    files.lines(tmp_path / "m.jsonl", nested)
    assert fails(tmp_path / "m.jsonl").endswith("; it looks like OpenAssistant (data=oasst)")
    trees = Oasst(root=str(published("oasst"))).read()
    assert Oasst(root=str(tmp_path / "m.jsonl")).read().train == trees.train


def test_hints_lead_somewhere(write, published):
    """Each row is refused with a hint, and read once the hint is followed."""
    base = {"instruction": "1 + 1?"}
    cases: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
        ({**base, "answer": "2"}, "set data.fields.response=answer", {"fields": {"response": "answer"}}),
        ({**base, "output": "", "answer": "2"}, "or set data.fields.response=answer data.ignore=[output]",
         {"fields": {"response": "answer"}, "ignore": ["output"]}),
        ({**base, "output": "2", "level": 3}, "data.ignore=[level]", {"ignore": ["level"]}),
        ({"question": "1 + 1?", "output": "2"}, "map them with data.fields", {"fields": {"instruction": "question"}}),
        ({**base, "output": "2", "response": "3"}, "add one of them to data.ignore", {"ignore": ["response"]}),
        ({"question": "1 + 1?", "answer": "2"}, "map them with data.fields",
         {"fields": {"instruction": "question", "response": "answer"}}),
    ]  # fmt: skip
    for row, hint, settings in cases:
        path = write("x.jsonl", [row])
        assert hint in fails(path)
        assert read(path, **settings)[0].response == "2"
    assert fails(write("x.jsonl", [{**base, "output": "2", "level": 3}])).endswith(
        "data.ignore=[level]"
    )
    assert read_row(write, {"prompt": "Hi", "completion": "Hello"}).response == "Hello"
    with pytest.raises(DataError, match=r"it looks like GSM8K \(data=gsm8k\)"):
        Jsonl(train=str(published("gsm8k") / "train.jsonl")).load()
    assert Gsm8k(root=str(published("gsm8k"))).load()
    with pytest.raises(DataError, match=r"it looks like instruction data \(data=jsonl\)"):
        Gsm8k(root=str(write("train.jsonl", [ARC]))).load()
    assert "write the items of a JSON list as one object a line" in fails(
        write("l.jsonl", [ARC, "[{}"])
    )
