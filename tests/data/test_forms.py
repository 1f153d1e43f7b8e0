"""Instruction files as people have them: formats, published layouts, and hints that lead somewhere."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pytest

from elrea.commands.predict import read_prompts
from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.rows import RowReader
from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.oasst import Oasst
from elrea.errors import DataError
from tests.data import published as files

ROWS = [
    {"instruction": f"Name thing {i}, please.", "input": "", "output": f'"té{i}"\nand more'}
    for i in range(3)
]


def read(path: Path, **settings: Any) -> tuple[Example, ...]:
    return read_files({"data.train": str(path)}, RowReader(**settings), Drops())["data.train"]


def read_row(write, row: Any, **settings: Any) -> Example:
    return read(write("x.jsonl", [row]), **settings)[0]


def fails(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8", **form: Any) -> Path:
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **form)
        writer.writeheader()
        writer.writerows(rows)
    return path


def save(path: Path) -> Path:
    """The rows in the format that the name asks for: "utf-16.x.csv.gz"."""
    encoding, _, name = path.name.partition(".")
    if "semicolon" in name:
        table(path, ROWS, encoding, delimiter=";")
    elif ".csv" in name or ".tsv" in name:
        table(path, ROWS, encoding, delimiter="," if ".csv" in name else "\t")
    else:
        text = json.dumps(ROWS, indent=1) if "array" in name else lines(ROWS)
        path.write_text(text, encoding=encoding)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "utf-8.x.jsonl", "utf-8-sig.x.jsonl", "utf-16.x.jsonl", "utf-32.x.jsonl", "utf-8.x.jsonl.gz",
        "utf-16.x.jsonl.gz", "utf-8.x.json", "utf-8.array.json", "utf-8-sig.array.json", "utf-16.array.json",
        "utf-8.array.json.gz", "utf-8.array.jsonl", "utf-8-sig.array.jsonl", "utf-8.x.csv", "utf-8-sig.x.csv",
        "utf-16.x.csv", "utf-8.x.csv.gz", "utf-8.semicolon.csv", "utf-8.x.tsv", "utf-16.x.tsv.gz", "utf-8.x.txt",
    ],
)  # fmt: skip
def test_formats_and_encodings(tmp_path, name):
    examples = read(save(tmp_path / name))
    assert [e.instruction for e in examples] == [row["instruction"] for row in ROWS]
    assert [e.response for e in examples] == [row["output"] for row in ROWS]
    assert len({e.id for e in examples}) == 3
    assert examples[0].id.startswith(f"{tmp_path.name}/{name}:")


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "choices": None} for row in ROWS]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    examples = read(tmp_path / "x.parquet")
    assert [e.response for e in examples] == [row["output"] for row in ROWS]
    assert [e.source for e in examples] == ["x"] * 3


def test_parquet_columns_that_python_cannot_hold(tmp_path):
    """They are named, and may be ignored; the last of two columns with one name does not win."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    good = {"instruction": ["a", "b"], "response": ["c", "d"]}
    latin = arrow.array([b"\xff", b"b"]).buffers()
    for column in (
        arrow.Array.from_buffers(arrow.string(), 2, latin),
        arrow.array([2**60, 1], type=arrow.timestamp("us")),
    ):
        path = tmp_path / "x.parquet"
        parquet.write_table(arrow.table({**good, "made at": column}), path)
        said = fails(path)
        assert said.startswith("x.parquet: the column 'made at' cannot be read (")
        assert said.endswith("""('data.ignore=["made at"]' skips it)""")
        assert [e.response for e in read(path, ignore=["made at"])] == ["c", "d"]
        with pytest.raises(DataError, match=r"\(--ignore 'made at' skips it\)$"):
            read_prompts(path)
    columns = [arrow.array([text]) for text in "abc"]
    names = ["instruction", "response", "response"]
    parquet.write_table(arrow.Table.from_arrays(columns, names=names), path)
    assert fails(path) == "x.parquet: the column 'response' appears twice; rename one of the two"


def test_suffixes_in_capital_letters(tmp_path):
    for name, as_it_is in (("utf-8.x.csv", "B.CSV"), ("utf-8.array.json.gz", "B.JSON.GZ")):
        path = save(tmp_path / name).rename(tmp_path / as_it_is)
        assert [e.response for e in read(path)] == [row["output"] for row in ROWS]


def test_the_separator_that_excel_names(tmp_path):
    for line in ("sep=;", '"sep=;"', "sep=|", "sep=\t"):
        separator = line.strip('"')[-1]
        path = table(tmp_path / "x.csv", ROWS, delimiter=separator)
        path.write_bytes(line.encode() + b"\r\n" + path.read_bytes())
        examples = read(path)
        assert [e.response for e in examples] == [row["output"] for row in ROWS]
        assert examples[0].id.endswith(":3")


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.jsonl", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("x.jsonl.zip", zipped, "a zip archive or an Excel workbook, not text; unpack it"),
        ("x.xlsx", zipped, "a zip archive or an Excel workbook, not text; unpack it, or save it as CSV"),
        ("x.csv", zipped, "a zip archive or an Excel workbook"),
        ("x.jsonl", gzip.compress, "compressed by gzip; let its name end with .gz"),
        ("x.json", gzip.compress, "compressed by gzip; let its name end with .gz"),
        ("x.jsonl.bz2", bz2.compress, "compressed by bzip2; unpack it"),
        ("x.jsonl.xz", lzma.compress, "compressed by xz; unpack it"),
        ("x.jsonl.zst", lambda content: b"\x28\xb5\x2f\xfd" + content, "compressed by zstd; unpack it"),
        ("x.jsonl", lambda content: b"PAR1" + content + b"PAR1", "Parquet; let its name end with .parquet"),
    ],
)  # fmt: skip
def test_files_that_are_no_text_are_named_by_what_they_are(tmp_path, name, make, said):
    (tmp_path / name).write_bytes(make(lines(ROWS).encode()))
    assert fails(tmp_path / name).startswith(f"{name}: {said}")


def test_an_answer_in_a_table_is_a_text_or_an_index(tmp_path, write):
    """A cell has no type: "1" is a text or an index, where JSON has a text or a number."""
    row = {"instruction": "1 + 1?", "choices": ["1", "2", "3"]}
    cells = {**row, "choices": json.dumps(row["choices"])}
    said = fails(table(tmp_path / "x.csv", [{**cells, "answer": "1"}]))
    assert (
        "the answer '1' is the text of one choice and the index from 0 of another; give a letter"
        in said
    )
    for answer, response in (("B", "2"), ("3", "3"), ("0", "1")):
        (example,) = read(table(tmp_path / "x.csv", [{**cells, "answer": answer}]), options="text")
        assert example.response == response
    for given, response in ((1, "2"), ("1", "1")):
        assert read_row(write, {**row, "answer": given}, options="text").response == response
    same = {**cells, "choices": '["0", "1"]', "answer": "1"}
    assert read(table(tmp_path / "x.csv", [same]), options="text")[0].response == "1"


def test_the_source_of_a_file_is_its_name(tmp_path):
    """That of a .json file has the suffix, as before: a source is part of the stage keys."""
    names = {
        "utf-8.x.jsonl": "utf-8.x",
        "utf-8.x.csv.gz": "utf-8.x",
        "utf-8.x.jsonl.gz": "utf-8.x",
        "utf-8.x.json": "utf-8.x.json",
    }
    for name, source in names.items():
        assert {e.source for e in read(save(tmp_path / name))} == {source}


def test_ids_are_lines_or_entries(tmp_path):
    assert [e.id[-2:] for e in read(save(tmp_path / "utf-8.x.csv"))] == [":2", ":4", ":6"]
    assert [e.id[-2:] for e in read(save(tmp_path / "utf-8.array.json"))] == [":1", ":2", ":3"]


def test_a_folder_is_read_by_its_json_lines_or_else_by_all_its_files(tmp_path):
    save(tmp_path / "utf-8.x.csv")
    save(tmp_path / "utf-8.array.json")
    (tmp_path / "README.md").write_text("text")
    assert len(read(tmp_path)) == 6
    save(tmp_path / "utf-8.y.jsonl")
    assert {e.source for e in read(tmp_path)} == {"utf-8.y"}


def test_an_index_in_a_table_is_the_json_files_or_refused(tmp_path):
    """A cell is a text: "1" may be the index of one choice and the text of another."""
    refused = []
    for texts in (["red", "blue"], ["1", "2"], ["0", "1"], ["7", "1"]):
        for answer in (0, 1):
            row = {"instruction": "Which?", "choices": json.dumps(texts), "answer": answer}
            (tmp_path / "x.jsonl").write_text(json.dumps({**row, "choices": texts}))
            try:
                (cell,) = read(table(tmp_path / "x.csv", [row]))
            except DataError as error:
                assert "the index from 0 of another; give a letter" in str(error)
                refused.append((texts[0], answer))
            else:
                assert cell.answer == read(tmp_path / "x.jsonl")[0].answer == answer
    assert refused == [("1", 1)]


def test_long_cells_choices_in_a_table_and_an_index_of_pandas(tmp_path):
    rows = [
        {"": i, "instruction": "a" * 200_000, "choices": '["red", "blue"]', "answer": "B"}
        for i in range(2)
    ]
    examples = read(table(tmp_path / "x.csv", rows), options="text")
    assert [(len(e.instruction), e.response) for e in examples] == [(200_000, "blue")] * 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "instruction,output\na,b\na,b,c\n", "x.csv:3: 3 cells instead of 2; quote a cell that has a ','"),
        ("x.csv", 'instruction,output\na,"b"c\n', "x.csv:2: broken table ("),
        ("x.csv", "instruction,output,output\n", "x.csv:1: the column 'output' appears twice; rename"),
        ("x.csv", "instruction,,output\n", "x.csv:1: a column without a name; name it"),
        ("x.csv", "instruction,output\n", "x.csv: the file is empty; remove it or fill it"),
        ("x.csv", "question,output\na,b\n", "x.csv:2: unknown field(s) 'question'; map them with data.fields"),
        ("x.csv", 'instruction,output\n"a\nb",c\nd,\n', "x.csv:4: the response is empty; fill it or remove the line"),
        ("x.json", '[{"instruction": "a", "output": "b"},\n 3]', "x.json, entry 2: int instead of a JSON object"),
        ("x.json", '[{"instruction": "a", "output": "b"},\n {"a": 1, "a": 2}]',
         "x.json, entry 2: the key 'a' appears twice; keep one of the two"),
        ("x.json", '[{"instruction": "a", "output": "b"},\n {"instruction": }]', "x.json:2: broken JSON (Expecting"),
        ("x.json", '[{"instruction": "a", "output": "b"},\n', "x.json:1: broken JSON (Expecting value"),
        ("x.json", '[{"instruction": "a", "output": "b"}] []', "x.json:1: broken JSON (Extra data)"),
        ("x.json", '[{"instruction": "a", "output": "b"} {}]', "x.json:1: broken JSON (Expecting ',' delimiter)"),
        ("x.json", '\n\n [{"instruction": "a", "output": "b"},]', "x.json:3: broken JSON (Expecting value)"),
        ("x.json", "[]", "x.json: the file is empty"),
        ("x.json", '{"a": 1, "a": 2}', "x.json: the key 'a' appears twice"),
        ("x.json", " ", "x.json: the file is empty"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    assert fails(tmp_path / name).startswith(said)


def test_text_in_other_encodings_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes("instruction,output\né,b\n".encode("latin-1"))
    assert fails(tmp_path / "x.csv") == "x.csv:2: not UTF-8; save it as UTF-8"
    (tmp_path / "x.jsonl").write_bytes(lines(ROWS).encode("utf-16")[:-1])
    assert fails(tmp_path / "x.jsonl").startswith("x.jsonl: not UTF-16 (byte ")


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
