"""Instruction files in the formats and encodings that people have: which are read, and which are refused by name."""

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
from elrea.data.examples import Example
from elrea.errors import DataError
from tests.data.reading import fails, read

ROWS = [
    {"instruction": f"Name thing {i}, please.", "input": "", "output": f'"té{i}"\nand more'}
    for i in range(3)
]


def read_row(write, row: Any, **settings: Any) -> Example:
    return read(write("x.jsonl", [row]), **settings)[0]


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
