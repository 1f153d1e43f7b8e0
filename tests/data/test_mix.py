"""Mixes of sources, MATH-Combined, and the command that writes MATH-Combined to files."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from elrea.commands import combine
from elrea.data.exam.exam import Exam
from elrea.data.sources.bbh import Bbh
from elrea.data.sources.dolly import Dolly
from elrea.data.sources.flan_cot import FlanCot
from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.maths import Maths
from elrea.data.sources.mix import Mix
from elrea.data.sources.mmlu import Mmlu
from elrea.data.sources.svamp import Svamp
from elrea.errors import ConfigError, DataError
from tests.data import published as files


@pytest.fixture
def root(published):
    return str(published("dolly").parent)


@pytest.fixture
def four(published, root):
    for name in ("math", "gsm8k", "svamp", "mathqa"):
        published(name)
    return root


def sizes(examples):
    return dict(Counter(example.source for example in examples))


def fails(source, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        source.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_test_and_dev_are_held_out_of_every_source(root, published, write):
    published("gsm8k")
    lines = [{"prompt": f"{i}?", "completion": "a<|endoftext|>"} for i in range(20)]
    write("published/t0/one.jsonl", lines[:10])
    write("published/t0/two.jsonl", lines[10:])
    mix = {"dolly": Dolly(), "t0": Jsonl(), "gsm8k": Gsm8k(), "flan_cot": FlanCot()}
    corpus = Mix(mix, root=root, test_share=0.2, dev_per_source=2).load()
    assert sizes(corpus.train) == {"dolly": 6, "t0": 14, "gsm8k": 4}
    assert sizes(corpus.dev) == {"dolly": 2, "t0": 2, "gsm8k": 2}
    assert sizes(corpus.test) == {"dolly": 2, "t0": 4, "gsm8k": 1}
    assert corpus.note == (
        "mix of dolly 6 and 2, t0 14 and 4, gsm8k 4 and 1 to train and test; missing: flan_cot"
    )
    assert {e.category for e in corpus if e.source == "t0"} == {"one", "two"}
    assert all(e.id.startswith(f"{e.source}/") for e in corpus)
    capped = Mix(
        mix, root=root, only=["t0", "dolly"], train_per_source=3, test_per_source=1, limit_train=5
    ).load()
    assert len(capped.train) == 5 and sizes(capped.test) == {"dolly": 1, "t0": 1}
    assert (
        capped
        == Mix(
            mix,
            root=root,
            only=["t0", "dolly"],
            train_per_source=3,
            test_per_source=1,
            limit_train=5,
        ).load()
    )
    other = Mix(mix, root=root, only=["t0"], seed=1).load()
    assert other.test != Mix(mix, root=root, only=["t0"]).load().test


def test_a_sources_own_settings_apply(root, tmp_path):
    own = Dolly(root=f"{root}/dolly", limit_train=4, limit_test=1, test_share=0.5)
    corpus = Mix({"mine": own}).load()
    assert (len(corpus.train), len(corpus.test)) == (4, 1)
    assert corpus.tasks == "source"
    assert corpus.train[0].source == "mine" and corpus.train[0].category == "open_qa"


def test_a_question_of_another_sources_test_is_refused_or_dropped(published, root, tmp_path):
    published("gsm8k")
    files.lines(tmp_path / "own" / "train.jsonl", [
        *({"instruction": f"{i}?", "response": "1"} for i in range(9)),
        {"instruction": files.GSM8K["test"][0]["question"], "response": "\\boxed{3}", "judge": "maths"},
    ])  # fmt: skip
    mix = {
        "own": Jsonl(train=str(tmp_path / "own"), test_share=0.01, seed=0),
        "gsm8k": Gsm8k(root=f"{root}/gsm8k"),
    }
    said = fails(Mix(mix, test_share=0.12))
    assert said.startswith("data.sources.own: 1 of ") and "first gsm8k/test/0 (train: own/" in said
    corpus = Mix(mix, overlap="drop", test_share=0.12).load()
    assert "1 dropped from train" in corpus.note
    assert corpus.left_out[0].startswith("own: 1 dropped from train: also in test (own/")
    assert Mix(mix, allow_overlap=True, test_share=0.12).load()


def test_wrong_mixes_are_refused(root):
    assert "data=mix has no source: set data.root=" in fails(Mix({"dolly": Dolly()}))
    assert "data=mix has no source" in fails(Mix({"flan_cot": FlanCot(), "t0": Jsonl()}, hub=True))
    assert "data.only: no source 'doly'; did you mean dolly? (there is: dolly)" in fails(
        Mix({"dolly": Dolly()}, root=root, only=["doly"]), ConfigError
    )
    assert "data.sources.exam: this choice of data cannot be mixed" in fails(
        Mix({"exam": Exam()}), ConfigError
    )
    said = fails(Mix({"dolly": Dolly(seed=3)}, root=root), ConfigError)
    assert said.endswith("dolly.seed=3: a mix has one for all its sources; set data.seed=3")
    said = fails(Mix({"dolly": Dolly(allow_overlap=True)}, root=root), ConfigError)
    assert said.endswith(
        "dolly.allow_overlap=True: a mix has one for all its sources; set data.allow_overlap=True"
    )
    said = fails(Mix({"dolly": Dolly(limit_test=0)}, root=root), ConfigError)
    assert said.startswith("data.sources.dolly.limit_test=0 must be at least 1")
    said = fails(Mix({"svamp": Svamp()}, root=root, only=["svamp"]))
    assert "published/svamp: no such file or folder" in said


@pytest.mark.parametrize("kind", [Mmlu, Bbh])
def test_a_benchmark_in_a_mix_is_refused_with_the_words_that_test_on_it(kind, root):
    said = fails(Mix({"quiz": kind(root=root), "dolly": Dolly()}, root=root), ConfigError)
    assert said.startswith("data.sources.quiz: ") and "has no training questions" in said
    words = said.partition("; to train on the other sources, set ")[2].split()
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        data = compose("config", overrides=[*words, "data.train.sources.dolly.limit_train=9"]).data
    assert data._target_.endswith(f".{kind.__name__}") and data.train._target_.endswith(".Mix")
    assert data.train.sources.dolly.limit_train == 9


def test_a_sources_shots_are_given_after_all_limits(root, write):
    path = str(write("own/train.jsonl", [{"prompt": f"{i}?", "completion": "a"} for i in range(9)]))
    mix = {"own": Jsonl(train=path, shots=2), "dolly": Dolly(root=f"{root}/dolly")}
    corpus = Mix(mix, train_per_source=3).load()
    assert {(e.source, len(e.shots)) for e in corpus.test} == {("own", 2), ("dolly", 0)}
    own = {(e.instruction, e.response) for e in corpus.train if e.source == "own"}
    assert all(set(e.shots) <= own for e in corpus.test)
    assert not any(e.shots for e in corpus.train)
    many = {**mix, "own": Jsonl(train=path, shots=8)}
    said = fails(Mix(many, train_per_source=3), ConfigError)
    assert said.startswith("data.sources.own.shots=8: train has 3 examples")


def test_math_combined(four):
    corpus = Maths(root=four).load()
    assert sizes(corpus.train) == {"math": 3, "gsm8k": 6, "svamp": 8, "mathqa": 4}
    assert sizes(corpus.test) == {"math": 3, "gsm8k": 1, "svamp": 4, "mathqa": 4}
    assert all("\\boxed{" in e.response and e.judge == "maths" for e in corpus)
    assert corpus.note.startswith("MATH-Combined: math 3 and 3, gsm8k 6 and 1, ")
    limits = {name: (s.limit_train, s.limit_test) for name, s in Maths().sources.items()}
    assert limits == {
        "math": (7500, 1000), "gsm8k": (7441, 1000), "svamp": (677, 280), "mathqa": (26287, 998),
    }  # fmt: skip


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["combine", *words])
    combine.main()


def test_the_command_writes_what_jsonl_reads(four, tmp_path, monkeypatch, capsys):
    files.lines(
        tmp_path / "published/gsm8k/train.jsonl",
        [*files.GSM8K["train"], {"question": "?", "answer": "none"}],
    )
    for out in ("one", "two"):
        command(
            monkeypatch, "--root", four, "--out", str(tmp_path / out), "sources.svamp.limit_test=2"
        )
    said = capsys.readouterr().out.splitlines()
    assert said[:6] == [
        "source   train     dev    test",
        "math         3       0       3",
        "gsm8k        6       0       1",
        "svamp        8       0       2",
        "mathqa       4       4       4",
        "all         21       4      10",
    ]
    out = tmp_path / "one"
    assert said[7] == (
        f"{out}: elrea run data=jsonl data.train={out}/train.jsonl data.dev={out}/dev.jsonl"
        f" data.test={out}/test.jsonl"
    )
    assert said[6] == 'gsm8k: 1 dropped from train: no number after "####" (gsm8k/train.jsonl:7)'
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    corpus = Maths(root=four).load()
    read = Jsonl(
        train=str(tmp_path / "one/train.jsonl"), test=str(tmp_path / "one/test.jsonl")
    ).load()
    for ours, theirs in zip(corpus.train, read.train, strict=True):
        assert theirs.id == f"one/train.jsonl:{ours.id}"
        for field in ("instruction", "response", "source", "category", "judge"):
            assert getattr(ours, field) == getattr(theirs, field)
    row = json.loads((tmp_path / "one/test.jsonl").read_text().splitlines()[0])
    assert list(row) == ["id", "instruction", "response", "source", "category", "judge"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--root: give the folder of math/"),
        (["--root", "x", "seed"], "'seed': must be key=value"),
        (["--root", "x", "sed=1"], "data.sed: unknown key; did you mean seed?"),
        (["--root", "x", "sources.gsm8k._target_=elrea.data.exam.exam.Exam"], "must be key=value"),
    ],
)
def test_the_command_refuses(words, said, tmp_path, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        command(monkeypatch, "--out", str(tmp_path / "out"), *words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_overwrites_nothing(tmp_path, monkeypatch, four):
    (tmp_path / "train.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"train\.jsonl exists already; name another folder"):
        command(monkeypatch, "--root", four, "--out", str(tmp_path))
    assert (tmp_path / "train.jsonl").read_text() == "mine"


def test_the_command_writes_what_was_held_out_as_dev(four, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    command(monkeypatch, "--root", four, "--out", str(out), "dev_per_source=2")
    corpus = Maths(root=four, dev_per_source=2).load()
    assert len(corpus.dev) == 8
    files_read: dict[str, Any] = {
        name: str(out / f"{name}.jsonl") for name in ("train", "dev", "test")
    }
    assert len(Jsonl(**files_read).load().dev) == 8
    with pytest.raises(ConfigError, match="exists already"):
        command(monkeypatch, "--root", four, "--out", str(out), "dev_per_source=2")


OTHER_LAYOUTS = [
    "TOM eats 2 of 5 figs ... how many are left",
    "Tom eats 2 of 5 figs. How many are left?",
]


@pytest.mark.parametrize("asked", OTHER_LAYOUTS)
def test_another_sources_test_question_is_dropped_from_train(root, published, write, asked):
    """Also with another judge, in other case and punctuation, and in an earlier turn of a chat."""
    published("gsm8k")
    turns = [("user", asked), ("assistant", "3"), ("user", "Why?"), ("assistant", "So.")]
    write("published/t0/one.jsonl", [
        *({"prompt": f"{i}?", "completion": "a"} for i in range(20)),
        {"prompt": asked, "completion": "3"},
        {"messages": [{"role": role, "content": text} for role, text in turns]},
    ])  # fmt: skip
    mix = {"t0": Jsonl(test_share=0.05, seed=0), "gsm8k": Gsm8k()}
    said = fails(Mix(mix, root=root))
    assert said.startswith(
        "data.sources.t0: 1 of 2 test questions are also in train, first gsm8k/test/0"
    )
    own = {**mix, "t0": Jsonl(test_share=0.05, overlap="drop")}
    for dropping in (Mix(mix, root=root, overlap="drop"), Mix(own, root=root)):
        corpus = dropping.load()
        assert sizes(corpus.train) == {"t0": 19, "gsm8k": 6}
        assert corpus.left_out[0].startswith("t0: 2 dropped from train: also in test (t0/")
    with pytest.raises(DataError, match=r"data\.sources\.t0: 1 of 2 test"):
        Mix(own, root=root, overlap="refuse").load()


def test_overlap_of_a_mix_overrides_that_of_its_sources(four, tmp_path):
    row = {
        **files.GSM8K["train"][0],
        "question": f"{files.SVAMP[0]['Body']} how many ears are there",
    }
    files.lines(tmp_path / "published/gsm8k/train.jsonl", [*files.GSM8K["train"], row])
    maths = [Maths(root=four, seed=seed) for seed in range(20)]
    dropped = next(m for m in maths if "dropped from train" in m.load().note)
    assert dropped.load().left_out == ("gsm8k: 1 dropped from train: also in test (gsm8k/train/6)",)
    said = fails(Maths(root=four, seed=dropped.seed, overlap="refuse"))
    assert (
        said.startswith("data.sources.gsm8k: 1 of ") and "are also in train, first svamp/" in said
    )
    one = dropped.sources | {"gsm8k": Gsm8k(overlap="refuse")}
    assert "data.sources.gsm8k: 1 of " in fails(Maths(one, root=four, seed=dropped.seed))


def test_overlap_is_found_in_a_file_of_the_command(four, tmp_path, monkeypatch, capsys):
    command(monkeypatch, "--root", four, "--out", str(tmp_path / "out"))
    mine = Jsonl(
        train=[str(tmp_path / "out/test.jsonl"), str(tmp_path / "out/train.jsonl")], test_share=0.04
    )
    corpus = Mix({"mine": mine, "gsm8k": Gsm8k(root=f"{four}/gsm8k")}, overlap="drop").load()
    assert files.GSM8K["test"][0]["question"] not in {e.instruction for e in corpus.train}
    assert "out/test.jsonl:gsm8k/test/0" in corpus.left_out[-1]


def test_test_rows_beyond_a_limit_are_not_counted(four, tmp_path):
    none = [
        {**files.MATHQA["test"][0], "Problem": f"which {i} ?", "correct": "e"} for i in range(9)
    ]
    (tmp_path / "published/mathqa/test.json").write_text(json.dumps(none))
    corpus = Maths(root=four, test_per_source=1).load()
    (line,) = corpus.left_out
    assert line.startswith(
        "mathqa: 1 in test, scored wrong: the answer has no number (mathqa/test.json"
    )
    assert corpus.note.endswith("; 1 in test, scored wrong")


@pytest.mark.parametrize("name", ["train_per_source", "test_per_source"])
def test_a_limit_out_of_range_is_reported_by_its_setting(four, name):
    mix = Maths(root=four)
    setattr(mix, name, 0)
    said = fails(mix, ConfigError)
    assert said == f"data.{name}=0 must be at least 1, or null for all examples"


def test_a_title_is_short_and_the_note_stays_whole(root, published, write):
    """However many sources there are; what else a reader must know is in the note, which is shown once."""
    for name in (names := [f"source_{i}" for i in range(9)]):
        write(
            f"published/{name}/train.jsonl",
            [{"prompt": f"{name} {i}?", "completion": "a"} for i in range(10)],
        )
    corpus = Mix({name: Jsonl() for name in [*names, "absent"]}, root=root).load()
    assert corpus.title == "mix (source_0, source_1, source_2 and 6 more sources)"
    assert corpus.details == corpus.note
    assert corpus.note.startswith("mix of source_0 9 and 1, ") and "source_8" in corpus.note
    assert corpus.note.endswith("; missing: absent")
    few = Mix({name: Jsonl() for name in names[:2]}, root=root).load()
    assert few.title == "mix (source_0 and source_1)"
    published("gsm8k")
    alone = Mix({"gsm8k": Gsm8k()}, root=root).load()
    assert alone.title == "mix (gsm8k)"
    plain = Gsm8k(root=str(published("gsm8k"))).load()
    assert (plain.title, plain.details) == ("gsm8k (GSM8K)", ""), "a short note stays in the title"


def test_a_benchmark_trained_on_a_mix_has_a_short_title(root, published, write):
    for name in (names := [f"source_{i}" for i in range(6)]):
        write(
            f"published/{name}/train.jsonl",
            [{"prompt": f"{name} {i}?", "completion": "a"} for i in range(10)],
        )
    mix = Mix({name: Jsonl() for name in names}, root=root)
    corpus = Bbh(root=str(published("bbh")), train=mix).load()
    short = "trained on a mix of source_0, source_1, source_2 and 3 more sources"
    assert corpus.title.startswith("bbh (BIG-Bench Hard, ") and corpus.title.endswith(f"; {short})")
    assert "source_5" in corpus.note and "source_5" not in corpus.title
