"""The text of make run-real: the same for a seed, split by question, and right by the libraries that it came from."""

from __future__ import annotations

import errno
import html
import inspect
import json
import mimetypes
import os
import re
import unicodedata
import zoneinfo
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from elrea.data.sources.jsonl import Jsonl
from elrea.errors import DataError
from experiments.real_model import installed
from experiments.real_model.published import MOST, MmluQuestions, published_text
from experiments.real_model.split_rows import Text
from experiments.real_model.text import SIZES, SPLITS, installed_text
from tests.real_files import real_data

Row = dict[str, Any]


@pytest.fixture(scope="module")
def made() -> Text:
    return installed_text(0)


def load(text: Text, folder: Path) -> Any:
    paths = {name: str(path) for name, path in text.write(folder).items()}
    return Jsonl(train=paths["train"], dev=paths["dev"], test=paths["test"]).load()


def quoted(question: str) -> str:
    return re.findall(r'"(.*)"', question)[0]


def words(text: str) -> str:
    return " ".join(text.split())


def is_function(question: str, option: str) -> bool:
    module, sentence = re.findall(r"Python's (\S+) does this\? (.*)", question)[0]
    return sentence in words(inspect.getdoc(getattr(import_module(module), option)) or "")


def is_status(question: str, option: str) -> bool:
    status = HTTPStatus(int(option[:3]))
    return (f"{int(status)} {status.phrase}", status.description) == (option, quoted(question))


def is_errno(question: str, option: str) -> bool:
    return os.strerror(getattr(errno, option)) == quoted(question)


def is_kind(question: str, option: str) -> bool:
    name = question.partition(" is a character")[0]
    return installed.KINDS[unicodedata.category(unicodedata.lookup(name))] == option


def is_entity(question: str, option: str) -> bool:
    return unicodedata.name(html.unescape(option)).lower() in re.findall(
        "entity for (.*):", question
    )


def is_country(question: str, option: str) -> bool:
    folder = next(Path(p) for p in zoneinfo.TZPATH if (Path(p) / "zone.tab").is_file())
    (code,) = re.findall(
        rf"^(..)\t{re.escape(option)}$", (folder / "iso3166.tab").read_text(), re.M
    )
    zone = re.findall(r"time zone is (.*)\?", question)[0]
    return (
        re.search(rf"^{code}\t\S+\t{zone}\b", (folder / "zone.tab").read_text(), re.M) is not None
    )


def is_media_type(question: str, option: str) -> bool:
    return mimetypes.MimeTypes().guess_type(re.findall(r"data\.\S+(?=\.)", question)[0]) == (
        option,
        None,
    )


def is_page(question: str, option: str) -> bool:
    sentence = re.findall("says: (.*) On which page", question)[0]
    texts = import_module("pydoc_data.topics").topics.values()
    pages = [t for t in texts if t.strip().splitlines()[0].replace('"', "") == option]
    return any(sentence in words(page) for page in pages)


def is_data_set(question: str, option: str) -> bool:
    loaded = {"breast cancer", "diabetes", "digits", "iris", "linnerud", "wine"}
    sentence = question.partition("\n")[0]
    if option not in loaded:
        return option in right_of(question)
    load = getattr(import_module("sklearn.datasets"), f"load_{option.replace(' ', '_')}")
    return sentence in words(load().DESCR)


def right_of(question: str) -> list[str]:
    """The answer in the table itself, for what scikit-learn would have to download."""
    return [fact.answer for fact in installed.facts("data_sets") if fact.question == question]


def is_unit(question: str, option: str) -> bool:
    from scipy.constants import unit

    return bool(unit(question.partition(": ")[2]) == option)


RIGHT: dict[str, Callable[[str, str], bool]] = {
    "functions": is_function, "http": is_status, "errno": is_errno, "characters": is_kind, "entities": is_entity,
    "countries": is_country, "media_types": is_media_type, "reference": is_page, "data_sets": is_data_set,
    "units": is_unit,
}  # fmt: skip


@pytest.mark.parametrize("source", installed.SOURCES)
def test_an_answer_is_right_and_the_others_are_wrong(source: str, made: Text) -> None:
    rows = [row for split in SPLITS for row in made.splits[split] if row["source"] == source]
    if source == "countries" and not rows:
        pytest.skip("no time zone tables on this machine")
    assert len(rows) >= 20
    for row in rows:
        right = [RIGHT[source](row["instruction"], option) for option in row["choices"]]
        assert right == [place == row["answer"] for place in range(4)], row


def test_the_same_seed_writes_the_same_bytes(made: Text, tmp_path: Path) -> None:
    one, two = (made.write(tmp_path / "a"), installed_text(0).write(tmp_path / "b"))
    assert [p.read_bytes() for p in one.values()] == [p.read_bytes() for p in two.values()]
    other = installed_text(1)
    assert other.splits["test"] != made.splits["test"]
    assert {s: len(rows) for s, rows in other.splits.items()} == {
        s: len(rows) for s, rows in made.splits.items()
    }


@pytest.mark.parametrize("seed", [0, 7])
def test_no_question_is_in_two_splits(seed: int, tmp_path: Path) -> None:
    text = installed_text(seed)
    questions = [row["instruction"] for split in SPLITS for row in text.splits[split]]
    assert len(set(questions)) == len(questions)
    corpus = load(text, tmp_path)  # refuses a question of test or dev in train, whatever its layout
    assert all(len(example.choices) == 4 and example.options for example in corpus)
    assert {e.source for e in corpus.train} == {e.source for e in corpus.test}


def test_every_letter_is_right_equally_often(made: Text) -> None:
    for split in SPLITS:
        for source in installed.SOURCES:
            rows = [row for row in made.splits[split] if row["source"] == source]
            counts = [Counter(row["answer"] for row in rows)[place] for place in range(4)]
            assert max(counts) - min(counts) <= 1, (split, source)
            assert len(rows) <= SIZES[split]
        letters = "".join(str(row["answer"]) for row in made.splits[split])
        assert "0123" * 5 not in letters, "their order is drawn"


def test_a_source_without_data_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_table", lambda name: [])
    text = installed_text(0)
    assert "countries" not in {row["source"] for row in text.splits["train"]}
    assert "Left out: countries, whose data is not on this machine" in text.lines
    assert "make run-real ELREA_DATA=path/to/data" in text.lines[-1]


def gsm8k(folder: Path, train: int = 40, test: int = 10) -> None:
    """GSM8K's layout; the first test problem is a training problem too."""
    folder.mkdir(parents=True)
    rows = [
        {"question": f"Tom has {n} apples and buys {n}. How many?", "answer": f"Add.\n#### {2 * n}"}
        for n in range(train + test)
    ]
    for name, part in (("train", rows[:train]), ("test", [rows[0], *rows[train:]])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))


def mmlu(folder: Path) -> None:
    """MMLU's layout with one subject."""
    for split, count in (("dev", 5), ("test", 20)):
        (folder / split).mkdir(parents=True)
        lines = [
            f"{split} question {n}?,one {n},two,three,four,{'ABCD'[n % 4]}\n" for n in range(count)
        ]
        (folder / split / f"astronomy_{split}.csv").write_text("".join(lines))


def test_published_data_is_drawn_and_no_test_question_is_trained_on(tmp_path: Path) -> None:
    root = tmp_path / "data"
    gsm8k(root / "gsm8k", train=400)
    mmlu(root / "mmlu")
    text = published_text(root, 0)
    assert text.splits == published_text(root, 0).splits != published_text(root, 1).splits
    corpus = load(text, tmp_path / "made")
    assert Counter(e.source for e in corpus.test) == {"gsm8k": 11, "mmlu": 20}
    trained = {row["instruction"] for row in text.splits["train"]}
    assert trained and not any("Tom has 0 apples" in question for question in trained)
    of_mmlu = [row for row in text.splits["train"] if row["source"] == "mmlu"]
    assert of_mmlu and all(row["instruction"].startswith("dev") for row in of_mmlu)
    (row,) = [r for r in text.splits["test"] if "test question 1?" in r["instruction"]]
    assert row["choices"] == list("ABCD") and row["answer"] == 1
    assert row["instruction"].splitlines()[1:3] == ["A. one 1", "B. two"]
    assert text.lines[1].endswith("none of dolly, oasst, flan_cot, less, t0, svamp, mathqa, math")
    assert any("gsm8k" in line and "test" in line for line in text.lines[2:]), "what was dropped"


def test_published_sets_in_full(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("mmlu", "gsm8k", "svamp", "mathqa"):  # the others take a minute to compare
        (root / name).symlink_to(real_data(name))
    text = published_text(root, 0)
    corpus = load(text, tmp_path / "made")
    assert {e.source for e in corpus.train} == {e.source for e in corpus.test}
    assert all(len(row["instruction"]) <= MOST for rows in text.splits.values() for row in rows)
    tested = {e.stem for e in MmluQuestions(root=str(root / "mmlu")).read().test}
    assert not tested & {e.stem for e in corpus.train}


def rows(folder: Path, **row: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")


def long(folder: Path) -> None:
    folder.mkdir(parents=True)
    lines = (json.dumps({"prompt": f"{n} " * MOST, "completion": "y"}) for n in range(20))
    (folder / "a.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "no such folder; name the one that holds mmlu/, gsm8k/, ..."),
        (lambda root: root.write_text("x"), "no such folder"),
        (lambda root: root.mkdir(), "has none of the folders mmlu, dolly, "),
        (lambda root: (root / "bbh").mkdir(parents=True), "has none of the folders mmlu, dolly, "),
        (lambda root: (root / "gsm8k").mkdir(parents=True), "gsm8k: no file train* in here"),
        (lambda root: (root / "mmlu").mkdir(parents=True), "mmlu/test: no such folder"),
        (lambda root: rows(root / "gsm8k", foo=1), "train.jsonl:1: no field 'question'"),
        (
            lambda root: rows(root / "t0", question="x", foo="y"),
            "unknown field(s) 'question', 'foo'; mend",
        ),
        (
            lambda root: rows(root / "t0", prompt="x", completion="y"),
            "t0/: there are no train examples",
        ),
        (
            lambda root: long(root / "t0"),
            "t0 have no questions to train on and to test, of at most",
        ),
    ],
)
def test_elrea_data_that_is_no_data(make: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    make(root)
    with pytest.raises(DataError) as raised:
        published_text(root, 0)
    message = str(raised.value)
    assert message.startswith(f"ELREA_DATA={root}: ") and said in message and "\n" not in message
    assert message.endswith("or unset ELREA_DATA for text from the installed packages")
    assert "data.sources" not in message and "data.root" not in message
