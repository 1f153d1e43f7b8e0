"""data.bad_rows: rows that cannot be used are refused, or dropped and counted."""

from __future__ import annotations

import json

import pytest

from elrea.data.drops import Drops
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.rows import RowReader
from elrea.data.sources.flan_cot import FlanCot
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.mix import Mix
from elrea.data.sources.mmlu import Mmlu
from elrea.data.sources.oasst import Oasst
from elrea.errors import DataError
from elrea.reporting.html import run_report
from tests.reporting.reports import report

GOOD = {"instruction": "1 + 1?", "response": "2"}
BAD: list[tuple[object, str]] = [
    ({**GOOD, "response": " "}, "the response is empty"),
    ({**GOOD, "response": None}, "the response is null"),
    ({"instruction": "a"}, "no field 'response'"),
    ({**GOOD, "response": 3}, "the response must be a text, not int"),
    ({**GOOD, "response": float("nan")}, "the response must be a text, not NaN"),
    ({**GOOD, "response": "\ud800"}, "half a surrogate pair"),
    ({**GOOD, "id": "x"}, "duplicate id"),
    ('{"instruction": "a", "response": "b", "response": "c"}', "duplicate key"),
    ('{"instruction": "a", ', "broken JSON"),
    ("3", "not a JSON object"),
    ({"messages": "a"}, "messages must be a list of {role, content}"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "role 'tool'"),
    ({"instruction": "a", "choices": ["b", "c"], "answer": "d"}, "the answer is not one of the choices"),
    ({"instruction": "a", "choices": ["b", "b"], "answer": 0},
     "choices must be 2 to 26 different texts that are not empty"),
]  # fmt: skip


def rows(n: int) -> list[dict[str, str]]:
    return [{"instruction": f"What is {i}?", "response": str(i)} for i in range(n)]


def test_each_kind_of_bad_row_is_refused_or_counted_with_its_place(write):
    path = write("in/x.jsonl", [{**GOOD, "id": "x"}, *(row for row, _ in BAD), *rows(4)])
    with pytest.raises(
        DataError,
        match=r"in/x\.jsonl:2: the response is empty; fill it or remove the line \(data\.bad_rows=drop",
    ):
        Jsonl(train=str(path)).load()
    corpus = Jsonl(train=str(path), bad_rows="drop", test_share=0.4).load()
    assert len(corpus.train) + len(corpus.test) == 5
    assert corpus.note.endswith(f"; {len(BAD)} dropped from train")
    assert corpus.left_out == tuple(
        f"x: 1 dropped from train: {kind} (in/x.jsonl:{line})" for line, (_, kind) in enumerate(BAD, start=2)
    )  # fmt: skip


def test_files_of_a_folder_that_are_not_read_are_named(write, caplog):
    path = write("in/x.jsonl", rows(4))
    for name in ("a.csv", "b.json", "c.parquet", "d.tsv.gz", "README.md"):
        (path.parent / name).write_text("")
    assert len(read_files({"data.test": str(path.parent)}, RowReader(), Drops())["data.test"]) == 4
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path.parent}: of this folder the *.jsonl alone are read, not a.csv, b.json, c.parquet and 1 more; "
        "name files to read others"
    )


def test_files_that_look_like_data_are_named_whatever_their_suffix(write, caplog):
    folder = write("in/a.JSONL", rows(4)).parent
    for name in ("b.jsonl.zst", "c.ndjson", "d.XLSX", "README.md", "LICENSE"):
        (folder / name).write_text("")
    assert len(read_files({"data.test": str(folder)}, RowReader(), Drops())["data.test"]) == 4
    assert "alone are read, not b.jsonl.zst, c.ndjson, d.XLSX; name" in caplog.text
    caplog.clear()
    (folder / "c.ndjson").write_text("\n".join(map(json.dumps, rows(2))))
    both = {"data.test": [str(folder), str(folder / "c.ndjson")]}
    assert len(read_files(both, RowReader(), Drops())["data.test"]) == 6
    assert "not b.jsonl.zst, d.XLSX; name" in caplog.text, "a file that is named is read"
    caplog.clear()
    (folder / "a.JSONL").rename(folder / "a.json")
    write("in/c.ndjson", [{"instruction": "What is 4?", "response": "4"}])
    assert len(read_files({"data.test": str(folder)}, RowReader(), Drops())["data.test"]) == 5
    assert "are read, not b.jsonl.zst, d.XLSX; name" in caplog.text
    for name in ("a.json", "c.ndjson"):
        (folder / name).unlink()
    with pytest.raises(
        DataError, match=r"no data file in this folder but b\.jsonl\.zst, d\.XLSX \(data"
    ):
        read_files({"data.test": str(folder)}, RowReader(), Drops())


def test_rows_of_one_kind_are_one_line(write):
    path = write(
        "in/x.jsonl", [*rows(4), {**GOOD, "response": ""}, "{", {**GOOD, "response": "\n"}]
    )
    drops = Drops()
    read_files({"data.test": str(path)}, RowReader(), drops, "drop")
    assert list(drops.lines()) == [
        "x: 2 dropped from test: the response is empty (in/x.jsonl:5; in/x.jsonl:7)",
        "x: 1 dropped from test: broken JSON (in/x.jsonl:6)",
    ]


def test_what_a_setting_must_explain_is_never_dropped(write):
    """An unknown field is in every row: dropping would hide that a part of the question is not read."""
    path = write("x.jsonl", [{**GOOD, "passage": "Read this."}])
    with pytest.raises(DataError, match=r"unknown field\(s\) 'passage'"):
        Jsonl(train=str(path), bad_rows="drop").load()


def test_a_file_without_a_usable_row_is_refused(write):
    path = write("x.jsonl", [{**GOOD, "response": ""}] * 3)
    with pytest.raises(
        DataError,
        match=r"data\.train: none of the 3 rows can be used, first .*x\.jsonl:1: the resp",
    ):
        Jsonl(train=str(path), bad_rows="drop").load()


def test_bad_entries_of_an_array_and_rows_of_a_table_are_dropped(tmp_path):
    entries = [json.dumps(row) for row in rows(4)]
    (tmp_path / "x.json").write_text(
        f'[{entries[0]}, 3, {{"a": 1, "a": 2}}, {", ".join(entries[1:])}]'
    )
    (tmp_path / "x.csv").write_text("instruction,output\nWhy?,so\na,b,c\nWho?,\nWhat?,it\n")
    drops = Drops()
    settings = {"data.train": str(tmp_path / "x.json"), "data.test": str(tmp_path / "x.csv")}
    read = read_files(settings, RowReader(), drops, "drop")
    assert (len(read["data.train"]), len(read["data.test"])) == (4, 2)
    said = [line.replace(f"{tmp_path.name}/", "") for line in drops.lines()]
    assert said == [
        "x.json: 1 dropped from train: int instead of a JSON object (x.json, entry 2)",
        "x.json: 1 dropped from train: duplicate key (x.json, entry 3)",
        "x: 1 dropped from test: wrong number of cells (x.csv:3)",
        "x: 1 dropped from test: the response is empty (x.csv:4)",
    ]


def test_an_empty_file_of_a_folder_is_reported(write, tmp_path):
    write("in/a.jsonl", rows(9))
    write("in/b.jsonl", [])
    corpus = Jsonl(train=str(tmp_path / "in")).load()
    assert corpus.left_out == ("b: 1 empty file(s) in train: no row (in/b.jsonl)",)
    write("in/a.jsonl", [])
    with pytest.raises(DataError, match=r"in/a\.jsonl: the file is empty; remove it or fill it$"):
        Jsonl(train=str(tmp_path / "in")).load()


def test_a_benchmark_and_a_mix_count_them_too(write, published, tmp_path):
    path = write("in/x.jsonl", [*rows(9), {**GOOD, "response": ""}])
    line = "1 dropped from train: the response is empty (in/x.jsonl:10)"
    mmlu = Mmlu(root=str(published("mmlu")), train=str(path), subjects=["astronomy"], shots=0)
    with pytest.raises(DataError, match="the response is empty"):
        mmlu.load()
    mmlu.bad_rows = "drop"
    assert f"x: {line}" in mmlu.load().left_out
    assert f"own: {line}" in Mix({"own": Jsonl(train=str(path), bad_rows="drop")}).load().left_out


@pytest.mark.parametrize(("source", "name"), [(FlanCot, "empty_train.tsv"), (Oasst, "empty.jsonl")])
def test_an_empty_file_beside_published_files_is_reported(published, source, name):
    root = published(source.name)
    whole = source(root=str(root)).read()
    (root / name).write_text("")
    read = source(root=str(root)).read()
    assert read.train == whole.train
    line = f"{source.name}: 1 empty file(s) in train: no row ({source.name}/{name})"
    assert set(read.drops.lines()) == {*whole.drops.lines(), line}
    with pytest.raises(DataError, match="the file is empty; remove it or fill it"):
        source(root=str(root / name)).read()


def test_the_report_lists_them(write, tmp_path):
    path = write("in/x.jsonl", [*rows(9), {**GOOD, "response": ""}])
    left_out = Jsonl(train=str(path), bad_rows="drop").load().left_out
    page = run_report(tmp_path, report(left_out=left_out), {}).read_text()
    assert "<li>x: 1 dropped from train: the response is empty (in/x.jsonl:10)</li>" in page
    assert "Data left out" not in run_report(tmp_path, report(), {}).read_text()
