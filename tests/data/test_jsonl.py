"""The user's own instruction files: all formats, and bad input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.rows import RowReader
from elrea.data.sources.jsonl import Jsonl
from elrea.errors import ConfigError, DataError

GOOD = {"instruction": "1 + 1?", "response": "2"}
CHOICE = {"instruction": "Which?", "choices": ["red", "blue"]}


def read(path: Path | list[str], **settings: Any) -> tuple[Example, ...]:
    paths = [str(path)] if isinstance(path, Path) else path
    return read_files({"data.train": paths}, RowReader(**settings), Drops())["data.train"]


def chat(*turns: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.mark.parametrize(
    ("row", "instruction", "response"),
    [
        (GOOD, "1 + 1?", "2"),
        ({"instruction": "Add.", "input": "1 and 1", "output": "2"}, "Add.\n\n1 and 1", "2"),
        ({"instruction": "Add 1 and 1.", "input": "", "output": "2"}, "Add 1 and 1.", "2"),
        ({"instruction": "Sum?", "context": "1 and 1", "response": "2"}, "Sum?\n\n1 and 1", "2"),
        ({"prompt": "1 + 1?\n", "completion": "2<|endoftext|>"}, "1 + 1?\n", "2"),
        ({"prompt": "1 + 1?", "completion": " 2 <|endoftext|>\n"}, "1 + 1?", "2"),
        (chat(("user", "1 + 1?"), ("assistant", "2")), "1 + 1?", "2"),
        ({**GOOD, "category": None, "input": None}, "1 + 1?", "2"),
    ],
)
def test_formats(write, row, instruction, response):
    example = read(write("mine/sums.jsonl", [row]))[0]
    assert (example.instruction, example.response) == (instruction, response)
    assert (example.id, example.source, example.category) == ("mine/sums.jsonl:1", "sums", "")
    assert example.choices == () and example.history == ()


def test_the_last_assistant_turn_of_a_chat_is_the_response(write):
    turns = [("system", "Be brief."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "Twice?")]
    row = chat(*turns, ("assistant", "4"), ("user", "Thanks."))
    example = read(write("chat.jsonl", [row]))[0]
    assert (example.instruction, example.response) == ("Twice?", "4")
    assert example.history == tuple(turns[:3])


@pytest.mark.parametrize("answer", [1, "B", "blue", " blue "])
def test_an_answer_is_an_index_a_letter_or_the_text(write, answer):
    example = read(write("c.jsonl", [{**CHOICE, "answer": answer}]), options="text")[0]
    assert example.choices == ("red", "blue")
    assert (example.response, example.answer) == ("blue", 1)


def test_an_answer_as_text_may_be_an_index_or_a_number(write):
    """A number's text is the choice, or its index where no choice has this text."""
    row = {"instruction": "Which?", "choices": ["0", "10", "2"]}
    rows = [{**row, "answer": answer} for answer in ("0", "1", "10", "2", 2, "9" * 5000)]
    assert [e.answer for e in read(write("c.jsonl", rows[:5]))] == [0, 1, 1, 2, 2]
    with pytest.raises(DataError, match=r"c\.jsonl:6: the answer '99.* is not one of the 3"):
        read(write("c.jsonl", rows))


def test_an_answer_may_be_a_choice_that_is_a_letter(write):
    row = {"instruction": "Which?", "choices": ["A", "B", "X"]}
    rows = [{**row, "answer": answer} for answer in ("B", "X")]
    assert [example.answer for example in read(write("c.jsonl", rows))] == [1, 2]


def test_the_response_is_the_answer_if_there_is_no_answer_field(write):
    assert read(write("c.jsonl", [{**CHOICE, "response": "red"}]))[0].answer == 0


def test_own_source_category_and_id(write):
    rows = [{**GOOD, "source": "quiz", "category": "sums", "id": 7}, {**GOOD, "dataset": "dolly"}]
    first, second = read(write("a/x.jsonl", rows))
    assert (first.source, first.category, first.id) == ("quiz", "sums", "a/x.jsonl:7")
    assert (second.source, second.id) == ("dolly", "a/x.jsonl:2")


def test_other_field_names_and_fields_to_skip(write):
    path = write("x.jsonl", [{"question": "1 + 1?", "answer": "2", "level": 3, "context": "no"}])
    fields = {"instruction": "question", "response": "answer", "input": None}
    example = read(path, fields=fields, ignore=["level", "context"])[0]
    assert (example.instruction, example.response) == ("1 + 1?", "2")
    assert read(path, fields={**fields, "input": "else"}, ignore=["*"])[0] == example


def test_blank_lines_byte_order_mark_and_line_separators_in_texts(write):
    path = write("x.jsonl", ["", '{"instruction": "a\u2028b", "response": "c"}', "  "])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    only = read(path)
    assert [(e.instruction, e.id.rpartition(":")[2]) for e in only] == [("a\u2028b", "2")]


def test_all_files_of_a_folder_are_read_with_distinct_ids(write, tmp_path):
    for name in ("one/in/b.jsonl", "one/in/a.jsonl", "two/in/a.jsonl"):
        write(name, [GOOD])
    write("one/in/LICENSE", ["text"])
    write("one/in/._a.jsonl", ["hidden"])
    ids = [e.id for e in read([str(tmp_path / "one/in"), str(tmp_path / "two/in")])]
    assert ids == ["one/in/a.jsonl:1", "one/in/b.jsonl:1", "two/in/a.jsonl:1"]
    assert [e.id for e in read(tmp_path / "one/in")] == ["in/a.jsonl:1", "in/b.jsonl:1"]


BAD: list[tuple[Any, str]] = [
    ('{"instruction": "a", ', r"x\.jsonl:2: broken JSON \(.+\)"),
    (
        '[{"instruction": "a"}',
        r"x\.jsonl:2: broken JSON \(.+\); write the items of a JSON list as one object",
    ),
    ("[1]", r"x\.jsonl:2: not a JSON object"),
    ("[" * 99_999, r"x\.jsonl:2: broken JSON"),
    ({**GOOD, "contxt": "x"}, r"x\.jsonl:2: unknown field\(s\) 'contxt'.*data.ignore=\[contxt\]"),
    ({**GOOD, "output": "2"}, r"x\.jsonl:2: 'output' is a second field for the response"),
    (
        {"instruction": "1 + 1?", "answer": "2"},
        r"x\.jsonl:2: field 'answer' without choices.*fields.response=answer",
    ),
    ({"instruction": "a", "output": None}, r"x\.jsonl:2: the response \('output'\) is null; fill"),
    (
        {"instruction": None, "output": "a"},
        r"x\.jsonl:2: the instruction \('instruction'\) is null",
    ),
    (
        {"instruction": "a", "output": float("nan")},
        r"x\.jsonl:2: the response must be a text, not NaN",
    ),
    (
        '{"instruction": "a", "output": "b", "output": "c"}',
        r"x\.jsonl:2: the key 'output' appears twice; keep one of the two",
    ),
    (
        '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
        r"x\.jsonl:2: the key 'content' appears twice",
    ),
    ({"text": " "}, r"x\.jsonl:2: the text is empty; fill it or remove the line"),
    ({"text": 3}, r"x\.jsonl:2: the text must be a text, not int"),
    ({**GOOD, "text": "a"}, r"x\.jsonl:2: unknown field\(s\) 'text'; .*data.ignore=\[text\]"),
    ({"text": "a", "system": "b"}, r"x\.jsonl:2: unknown field\(s\) 'text'"),
    ({"instruction": "a"}, r"x\.jsonl:2: no field 'response'; the line has instruction"),
    ({"response": "a"}, r"x\.jsonl:2: no field 'instruction'"),
    ({}, r"x\.jsonl:2: no field 'instruction'; the line has nothing"),
    ({**GOOD, "instruction": 3}, r"x\.jsonl:2: the instruction must be a text, not int"),
    ({**GOOD, "response": " "}, r"x\.jsonl:2: the response is empty"),
    ({**GOOD, "instruction": "\n"}, r"x\.jsonl:2: the instruction is empty"),
    ({**GOOD, "response": "\ud800"}, r"x\.jsonl:2: not UTF-8: half a surrogate"),
    ({**CHOICE, "answer": 2}, r"x\.jsonl:2: the answer 2 is not one of the 2 choices"),
    ({**CHOICE, "answer": -1}, r"x\.jsonl:2: the answer -1 is not one of"),
    ({**CHOICE, "answer": True}, r"x\.jsonl:2: the answer must be an index from 0.*, not true \("),
    ({**CHOICE, "answer": 1.0}, r"x\.jsonl:2: the answer must be an index from 0.*, not 1\.0 \("),
    (
        {**CHOICE, "choices": ["B", "A"], "answer": "A"},
        r"x\.jsonl:2: the answer 'A' is the text of one choice and the letter of another; give an index",
    ),
    ({**CHOICE, "answer": "C"}, r"x\.jsonl:2: the answer 'C' is not one of .* A to B"),
    ({**CHOICE, "answer": "green"}, r"x\.jsonl:2: the answer 'green' is not one of"),
    (CHOICE, r"x\.jsonl:2: choices without a field 'answer'"),
    ({**CHOICE, "choices": ["a"], "answer": 0}, r"x\.jsonl:2: choices must be 2 to 26"),
    ({**CHOICE, "choices": ["a", "a"], "answer": 0}, r"x\.jsonl:2: choices must be 2 to 26"),
    ({**CHOICE, "choices": [1, 2], "answer": 0}, r"x\.jsonl:2: choices must be a list of texts"),
    ({"messages": "hi"}, r"x\.jsonl:2: messages must be a list"),
    ({"messages": [{"role": "bot", "content": "x"}]}, r"x\.jsonl:2: a message needs a role"),
    ({"messages": [{"role": "user", "content": []}]}, r"x\.jsonl:2: a message needs a role"),
    ({"messages": ["x"]}, r"x\.jsonl:2: a message needs a role"),
    (chat(("user", "x")), r"x\.jsonl:2: the last assistant turn must follow a user turn"),
    (chat(("system", "x"), ("assistant", "y")), r"x\.jsonl:2: the last assistant turn must"),
    ({**chat(("user", "x")), "response": "y"}, r"x\.jsonl:2: both messages and response; keep one"),
    ({**GOOD, "judge": "my judge"}, r"x\.jsonl:2: 'my judge' cannot be the name of a judge"),
    ({**GOOD, "judge": "../os"}, r"x\.jsonl:2: '\.\./os' cannot be the name of a judge"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_line_is_reported_with_its_number(write, row, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write("x.jsonl", [GOOD, row]))
    assert "\n" not in str(caught.value)


def test_a_judge_of_any_name_is_read(write):
    """The evaluation checks that the judge exists, so a new judge needs no change here."""
    assert read(write("x.jsonl", [{**GOOD, "judge": "my_judge2"}]))[0].judge == "my_judge2"


def test_text_that_is_not_utf8_is_refused(write):
    path = write("x.jsonl", [GOOD])
    path.write_bytes(path.read_bytes() + '{"instruction": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.jsonl:2: not UTF-8"):
        read(path)


def test_a_duplicate_id_is_refused(write):
    path = write("x.jsonl", [{**GOOD, "id": "a"}, GOOD, {**GOOD, "id": "a"}])
    with pytest.raises(
        DataError, match=r"x\.jsonl:3: duplicate id 'a', first at .+x\.jsonl:1; make"
    ):
        read(path)


def test_bad_files_are_refused(write, tmp_path):
    (tmp_path / "bare").mkdir()
    cases = {
        "none.jsonl": "none.jsonl: no such file or folder (data.train)",
        "bare": "bare: no data file in this folder (data.train); give .jsonl, .json, .csv",
        str(write("empty.jsonl", []).name): "empty.jsonl: the file is empty",
        str(write("blank.jsonl", ["", " "]).name): "blank.jsonl: the file is empty",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=re.escape(message)):
            read(tmp_path / name)
    twice = str(write("x.jsonl", [GOOD]))
    with pytest.raises(DataError, match=r"x\.jsonl: given twice \(data.train and data.train\)"):
        read([twice, twice])


def test_an_unknown_role_suggests_the_nearest():
    with pytest.raises(DataError, match=r"data\.fields\.respons: .* did you mean 'response'\?"):
        RowReader(fields={"respons": "x"})
    with pytest.raises(DataError, match="the roles are instruction, input"):
        RowReader(fields={"qqq": "x"})


def rows(n: int, first: int = 0) -> list[dict[str, str]]:
    return [{"instruction": f"{i}?", "response": str(i)} for i in range(first, first + n)]


def test_train_and_test_files(write):
    train, test = write("a.jsonl", rows(20)), write("b.jsonl", rows(5, 100))
    source = Jsonl(train=str(train), test=[str(test)], limit_train=7, limit_test=3)
    corpus = source.load()
    assert (corpus.name, len(corpus.train), len(corpus.dev), len(corpus.test)) == ("jsonl", 7, 0, 3)
    assert corpus.note == "own instruction data"
    assert corpus == source.load()


def test_a_share_is_held_out_without_a_test_file(write):
    path = str(write("a.jsonl", rows(40)))
    corpus = Jsonl(train=path, test_share=0.25).load()
    assert (len(corpus.train), len(corpus.test)) == (30, 10)
    assert "25% of the questions held out" in corpus.note
    assert corpus.test != Jsonl(train=path, test_share=0.25, seed=1).load().test


def test_shots_come_from_dev_or_train(write):
    files: dict[str, Any] = {
        "train": str(write("a.jsonl", rows(9))),
        "test": str(write("b.jsonl", rows(3, 50))),
    }
    from_train = Jsonl(**files, shots=2).load()
    shots = from_train.test[0].shots
    assert len(shots) == 2 and all(e.shots == shots for e in from_train.test)
    assert set(shots) <= {(e.instruction, e.response) for e in from_train.train}
    assert all(not e.shots for e in from_train.train)
    from_dev = Jsonl(**files, shots=2, dev=str(write("c.jsonl", rows(4, 80)))).load()
    assert set(from_dev.test[0].shots) <= {(e.instruction, e.response) for e in from_dev.dev}


def test_a_test_question_in_train_is_refused_unless_allowed(write):
    files: dict[str, Any] = {
        "train": str(write("a.jsonl", rows(9))),
        "test": str(write("b.jsonl", rows(3, 8))),
    }
    with pytest.raises(DataError, match="1 of 3 test questions are also in train"):
        Jsonl(**files, limit_train=1).load()  # checked before the limit
    assert len(Jsonl(**files, allow_overlap=True).load().test) == 3


def test_one_file_cannot_be_train_and_test(write):
    path = str(write("a.jsonl", rows(9)))
    with pytest.raises(DataError, match=r"given twice \(data.train and data.test\)"):
        Jsonl(train=path, test=path).load()


def test_wrong_settings_are_refused(write):
    with pytest.raises(DataError, match=r"data=jsonl needs data\.train"):
        Jsonl().load()
    path = str(write("a.jsonl", rows(9)))
    with pytest.raises(ConfigError, match=r"data\.shots=-1"):
        Jsonl(train=path, shots=-1).load()
    with pytest.raises(ConfigError, match=r"data\.shots=50: train has \d+ examples"):
        Jsonl(train=path, shots=50).load()
    with pytest.raises(ConfigError, match=r"data\.limit_test=0"):
        Jsonl(train=path, limit_test=0).load()
    with pytest.raises(DataError, match="there are no train examples"):
        Jsonl(train=str(write("one.jsonl", [GOOD]))).load()
    said = r"train examples \(test has 10 examples of 1 question, first \S+/same\.jsonl:1; .* 10% of the"
    with pytest.raises(DataError, match=said):
        Jsonl(train=str(write("same.jsonl", [GOOD] * 10))).load()


def test_the_real_prompt_completion_files(real_t0):
    corpus = Jsonl(train=str(real_t0)).load()
    everything = corpus.train + corpus.test
    assert len({e.source for e in everything}) == 89
    assert len(everything) == 17_299
    assert not any("<|endoftext|>" in e.response for e in everything)
    first = next(e for e in everything if e.id == "t0/ag_news_classify.jsonl:1")
    assert (first.response, first.source) == ("Business", "ag_news_classify")


def test_a_test_question_in_train_is_dropped_with_overlap_drop(write):
    row = {"instruction": "What is 1 + 1?", "response": "2"}
    train = write(
        "train.jsonl", [{**row, "instruction": "what is  1+1"}, {**row, "instruction": "1 - 1?"}]
    )
    given: dict[str, Any] = {"train": str(train), "test": str(write("test.jsonl", [row]))}
    with pytest.raises(DataError, match="data=jsonl: 1 of 1 test questions are also in train"):
        Jsonl(**given).load()
    corpus = Jsonl(**given, overlap="drop").load()
    assert [e.instruction for e in corpus.train] == ["1 - 1?"]
    assert corpus.note == "own instruction data; 1 dropped from train"
    assert corpus.left_out[0].startswith("train: 1 dropped from train: also in test (")


def test_tasks_are_sources_if_there_are_several(write):
    rows = [
        {"instruction": f"{i}?", "response": "a", "source": f"s{i % 2}", "category": "c"}
        for i in range(8)
    ]
    train = str(write("train.jsonl", rows))
    assert (
        Jsonl(train=train, test=str(write("test.jsonl", rows)), allow_overlap=True).load().tasks
        == "source"
    )
    one = Jsonl(train=train, test=str(write("test.jsonl", rows[:1])), allow_overlap=True).load()
    assert one.tasks == "category"
