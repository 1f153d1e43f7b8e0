"""MMLU, from small CSV files in its layout and from the real ones."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from elrea.data.sources.mmlu import SUBJECTS, Mmlu, read_csv
from elrea.errors import ConfigError, DataError


def rows(name: str, n: int) -> list[list[str]]:
    return [[f"{name} {i}?", "w", "x", "y", "z", "ABCD"[i % 4]] for i in range(n)]


def save(path: Path, content: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(content)
    return path


@pytest.fixture
def source(tmp_path, write) -> Any:
    """Settings of a small MMLU: two subjects, five dev and eight test questions each."""
    for subject in ("astronomy", "world_religions"):
        for split, n in (("dev", 5), ("test", 8)):
            save(tmp_path / f"mmlu/{split}/{subject}_{split}.csv", rows(f"{subject} {split}", n))
    train = write("train.jsonl", [{"instruction": f"{i}?", "response": "a"} for i in range(9)])
    subjects = ["astronomy", "world_religions"]
    return {"root": str(tmp_path / "mmlu"), "train": str(train), "subjects": subjects}


def test_questions_shots_and_header(source):
    corpus = Mmlu(**source).load()
    assert (corpus.name, len(corpus.train), len(corpus.dev), len(corpus.test)) == (
        "mmlu",
        9,
        10,
        16,
    )
    assert corpus.note == "MMLU, 2 of its 57 subjects, 5-shot; trained on other data"
    last = corpus.test[-1]
    assert last.id == "mmlu/test/world_religions/7"
    assert last.header == (
        "The following are multiple choice questions (with answers) about world religions."
    )
    assert last.instruction == "world_religions test 7?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert (last.choices, last.response, last.answer) == (("A", "B", "C", "D"), "D", 3)
    assert (last.source, last.category) == ("mmlu", "world_religions")
    assert len(last.shots) == 5
    assert last.shots[0] == ("world_religions dev 0?\nA. w\nB. x\nC. y\nD. z\nAnswer:", "A")
    assert all(len(e.shots) == 4 for e in corpus.dev)  # a question is never its own shot


def test_val_is_dev_if_it_exists(source):
    save(Path(source["root"]) / "val/astronomy_val.csv", rows("val", 3))
    dev = Mmlu(**{**source, "subjects": "astronomy"}).load().dev
    assert [e.id for e in dev] == [f"mmlu/val/astronomy/{i}" for i in range(3)]
    assert all(len(e.shots) == 5 for e in dev)


def test_subjects_shots_and_limits(source):
    source["subjects"] = ["world_religions"]
    one = Mmlu(**source, shots=2, limit_train=3, limit_test=4).load()
    assert (len(one.train), len(one.test)) == (3, 4)
    assert {e.category for e in one.test} == {"world_religions"}
    assert {len(e.shots) for e in one.test} == {2}


def whole(root: Path) -> None:
    """Write the missing files of all 57 subjects."""
    for subject in SUBJECTS:
        for split, n in (("dev", 5), ("test", 8)):
            if not (file := root / f"{split}/{subject}_{split}.csv").exists():
                save(file, rows(f"{subject} {split}", n))


def test_all_needs_57_subjects(source):
    root = Path(source["root"])
    source["subjects"] = "all"
    with pytest.raises(
        DataError,
        match=r"mmlu: no test questions of abstract_algebra, anatomy, business_ethics, clinical_knowledge,"
        r" college_biology and 50 more; MMLU has 57 subjects: add .* choose fewer subjects with data\.subjects=\[",
    ):
        Mmlu(**source).load()
    whole(root)
    corpus = Mmlu(**source).load()
    assert len(corpus.test) == 57 * 8 and "57 of its 57 subjects" in corpus.note
    assert Mmlu(**{**source, "subjects": ["all"]}).load() == corpus
    (root / "test/astronomy_test.csv").unlink()
    with pytest.raises(DataError, match="no test questions of astronomy; MMLU has 57"):
        Mmlu(**source).load()
    with pytest.raises(
        DataError, match=r"mmlu: astronomy in dev or val but not in test; add the test questions"
    ):
        Mmlu(**{**source, "subjects": ["astronomy", "virology"]}).load()
    assert Mmlu(**{**source, "subjects": ["virology"]}).load().test
    save(root / "test/astronomy_test.csv", rows("a", 1))
    save(root / "val/alchemy_val.csv", rows("b", 1))
    with pytest.raises(DataError, match="mmlu: alchemy in dev or val but not in test"):
        Mmlu(**source).load()


def test_a_test_question_is_dropped_from_dev(source):
    """The published files have five such questions, and a user could not correct them."""
    again = rows("world_religions test", 2)[1]
    save(Path(source["root"]) / "dev/astronomy_dev.csv", [*rows("astronomy dev", 5), again])
    corpus = Mmlu(**source).load()
    assert "mmlu/dev/astronomy/5" not in {e.id for e in corpus.dev} and len(corpus.dev) == 10
    assert corpus.left_out == ("mmlu: 1 dropped from dev: also in test (mmlu/dev/astronomy/5)",)
    assert len(Mmlu(**source, allow_overlap=True).load().dev) == 11


def test_no_shots_need_no_dev(source):
    for file in (Path(source["root"]) / "dev").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"astronomy_dev\.csv: no such file; add it or set data"):
        Mmlu(**source).load()
    corpus = Mmlu(**source, shots=0).load()
    assert corpus.dev == () and not corpus.test[0].shots and corpus.test[0].header


def test_train_has_the_settings_of_jsonl(source, write):
    source["train"] = str(write("t.jsonl", [{"q": "1?", "response": "a", "level": 1}]))
    with pytest.raises(DataError, match=r"t\.jsonl:1: unknown field\(s\) 'q', 'level'"):
        Mmlu(**source).load()
    corpus = Mmlu(**source, fields={"instruction": "q"}, ignore=["level"]).load()
    assert corpus.train[0].instruction == "1?"


def test_a_test_question_in_train_is_refused_unless_allowed(source, write):
    text = "astronomy test 0? A. w B. x C. y D. z Answer:"
    source["train"] = str(write("t.jsonl", [{"instruction": text, "response": "A"}]))
    with pytest.raises(DataError, match=r"first mmlu/test/astronomy/0 \(train: .*t\.jsonl:1\)"):
        Mmlu(**source).load()
    assert len(Mmlu(**source, allow_overlap=True).load().test) == 16


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Astronomy TEST 0?\n(A) w\n(B) x\n(C) y\n(D) z", "response": "A"},
        {"instruction": "The following are multiple choice questions (with answers) about  astronomy.\n\n"
         "astronomy test 0?\nA. w\nB. x\nC. y\nD. z\nAnswer:", "response": "A"},
        {"instruction": "astronomy test 0?", "choices": ["x", "w", "z", "y"], "answer": "w"},
        {"messages": [{"role": "user", "content": "astronomy test 0?\nA. w\nB. x\nC. y\nD. z"},
                      {"role": "assistant", "content": "A"}, {"role": "user", "content": "Why?"},
                      {"role": "assistant", "content": "So."}]},
    ],
)  # fmt: skip
def test_a_test_question_in_train_is_found_in_any_layout(source, write, row):
    stem = {"instruction": "astronomy test 0?", "response": "w"}
    others = {**stem, "instruction": "astronomy test 0?\nA. w\nB. x\nC. y\nD. another"}
    source["train"] = str(write("t.jsonl", [row, stem, others]))
    with pytest.raises(DataError, match=r"1 of 16 test questions .*/astronomy/0 \(train: .*:1\)"):
        Mmlu(**source).load()
    corpus = Mmlu(**source, overlap="drop").load()
    assert len(corpus.train) == 2 and len(corpus.test) == 16


def test_a_dev_question_in_train_is_refused(source, write):
    row = {"instruction": "astronomy dev 0?", "choices": ["x", "w", "z", "y"], "answer": "w"}
    source["train"] = str(write("t.jsonl", [row, {"instruction": "?", "response": "!"}]))
    with pytest.raises(DataError, match="1 of 10 dev questions are also in train"):
        Mmlu(**source).load()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"root": None}, DataError, "data=mmlu needs data.root"),
        ({"train": None}, DataError, r"data=mmlu needs data\.train: .* \.jsonl"),
        ({"root": "nowhere"}, DataError, r"nowhere: no such file or folder \(data\.root"),
        ({"train": "nowhere"}, DataError, r"nowhere: no such file or folder \(data\.train\)"),
        ({"subjects": ["astronmy"]}, DataError, "no subject 'astronmy'; did you mean astronomy"),
        ({"subjects": "qqq"}, DataError, r"no subject 'qqq' \(2 of 57 are available\)"),
        ({"subjects": []}, DataError, "data.subjects is empty"),
        ({"shots": 6}, DataError, r"astronomy_dev\.csv: 5 rows are fewer than data\.shots=6"),
        ({"shots": -1}, ConfigError, "data.shots=-1"),
        ({"limit_test": 0}, ConfigError, "data.limit_test=0"),
    ],
)
def test_wrong_settings_are_refused(source, change, kind, message):
    with pytest.raises(kind, match=message) as caught:
        Mmlu(**{**source, **change}).load()
    assert "\n" not in str(caught.value)


def test_folders_without_the_files_are_refused(source, tmp_path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"bare/test: no such folder"):
        Mmlu(**{**source, "root": str(tmp_path / "bare")}).load()
    (tmp_path / "bare/test").mkdir()
    with pytest.raises(DataError, match=r"bare/test: no file <subject>_test\.csv"):
        Mmlu(**{**source, "root": str(tmp_path / "bare")}).load()


def test_another_benchmarks_folder_is_recognised(source, published):
    for name, title in (("gsm8k", "GSM8K"), ("bbh", "BIG-Bench Hard"), ("svamp", "SVAMP")):
        with pytest.raises(
            DataError, match=rf"test: no such folder .* looks like {title} \(data={name}\)"
        ):
            Mmlu(**{**source, "root": str(published(name))}).load()


GOOD = b"first?,a,b,c,d,A\n"


def test_questions_may_span_lines_and_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" + b'"one,\r\n""two""?",a,b,c,d, B \r\n\r\n' + GOOD)
    first, second = read_csv(path, "x", "test")
    assert first.instruction.startswith('one,\r\n"two"?\nA. a\n') and first.response == "B"
    assert second.instruction.startswith("first?") and second.id == "mmlu/test/x/1"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"x\.csv: the file is empty"),
        (b"\n\n", r"x\.csv: the file is empty"),
        (GOOD + b"q?,a,b,c,A\n", r"x\.csv:2: 5 columns instead of 6"),
        (GOOD + b"q?,a,b,c,d,e,A\n", r"x\.csv:2: 7 columns"),
        (b'"a\nb",a,b,c,d,A\nq?,a\n', r"x\.csv:3: 2 columns"),
        (GOOD + b"q?,a,b,c,d,E\n", r"x\.csv:2: the answer 'E' is not one of A, B, C, D"),
        (b"question,A,B,C,D,answer\n", r"x\.csv:1: the answer 'answer' is not one of"),
        (GOOD + b" ,a,b,c,d,A\n", r"x\.csv:2: the question is empty"),
        (GOOD + b"q\xe9?,a,b,c,d,A\n", r"x\.csv:2: not UTF-8"),
        (GOOD + b'"q?,a,b,c,d,A\n', r"x\.csv:2: broken CSV"),
    ],
)
def test_a_bad_file_is_reported_with_its_line(tmp_path, raw, message):
    path = tmp_path / "x.csv"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read_csv(path, "x", "test")
    assert "\n" not in str(caught.value)


def test_the_real_files(real_mmlu, write):
    train = write("train.jsonl", [{"instruction": "1 + 1?", "response": "2"}])
    corpus = Mmlu(root=str(real_mmlu), train=str(train)).load()
    assert len(corpus.test) == 14_042
    assert len(corpus.dev) == 285 - 5
    assert [line.partition(" (")[0] for line in corpus.left_out] == [
        "mmlu: 5 dropped from dev: also in test"
    ]
    assert len({e.category for e in corpus.test}) == 57
    assert {len(e.shots) for e in corpus.test} == {5}
    first = corpus.test[0]
    assert first.id == "mmlu/test/abstract_algebra/0"
    assert first.instruction == (
        "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.\n"
        "A. 0\nB. 4\nC. 2\nD. 6\nAnswer:"
    )
    assert first.response == "B"
