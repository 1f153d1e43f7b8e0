"""GSM8K, SVAMP and MATH, from small files in their layouts."""

from __future__ import annotations

import json
import shutil

import pytest

from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.math import Math
from elrea.data.sources.mix import Mix
from elrea.data.sources.svamp import Svamp
from elrea.errors import ConfigError, DataError
from tests.data import published as files


def fails(source) -> str:
    with pytest.raises(DataError) as caught:
        source.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gsm8k(published):
    corpus = Gsm8k(root=str(published("gsm8k"))).load()
    first = corpus.train[2]
    assert first.id == "gsm8k/train/2" and first.instruction == files.GSM8K["train"][2]["question"]
    assert first.response == "She has 2+1000=1002.\nThe answer is \\boxed{1002}"
    assert (first.source, first.judge, first.choices, first.header) == ("gsm8k", "maths", (), "")
    assert (len(corpus.train), corpus.dev, len(corpus.test)) == (6, (), 1)
    assert (corpus.name, corpus.note, corpus.left_out) == ("gsm8k", "GSM8K", ())
    kept = Gsm8k(root=str(published("gsm8k")), calculator=True, header="In a box.").load().train[2]
    assert "<<2+1000=1002>>" in kept.response and kept.header == "In a box."


@pytest.mark.parametrize(("source", "test"), [(Gsm8k, "test.jsonl"), (Math, "test")])
def test_without_a_test_file_a_share_of_train_is_the_test(published, source, test):
    root = published(source.name)
    whole = source(root=str(root)).load()
    (root / test).rename(root.with_name("away"))
    alone = source(root=str(root), test_share=0.34).load()
    assert {e.id for e in alone.train + alone.test} == {e.id for e in whole.train}
    assert (
        alone.test
        and "34% of its questions held out as test; 1 file(s) of test missing" in alone.note
    )
    line = f"{source.name}: 1 file(s) of test missing: only train was read"
    assert alone.left_out[-1].startswith(line)
    mixed = Mix({source.name: source(root=str(root))}, test_share=0.34).load()
    assert any(said.startswith(line) for said in mixed.left_out)


def test_gsm8k_of_one_file(published):
    corpus = Gsm8k(root=str(published("gsm8k") / "train.jsonl")).load()
    assert (len(corpus.train), len(corpus.test)) == (5, 1)


def test_an_unparsed_answer_is_dropped_or_scored_wrong(published):
    root = published("gsm8k")
    bad = [{"question": f"{i}?", "answer": text} for i, text in enumerate(["yes", "a\n#### many"])]
    files.lines(root / "train.jsonl", [*files.GSM8K["train"], *bad])
    files.lines(root / "test.jsonl", [*files.GSM8K["test"], bad[0]])
    corpus = Gsm8k(root=str(root)).load()
    assert corpus.note == "GSM8K; 2 dropped from train, 1 in test, scored wrong"
    assert [e.id for e in corpus.train] == [f"gsm8k/train/{i}" for i in range(6)]
    lost = corpus.test[1]
    assert lost.instruction == "0?" and lost.response == "The answer is \\boxed{}"
    assert corpus.left_out == (
        'gsm8k: 2 dropped from train: no number after "####" (gsm8k/train.jsonl:7; gsm8k/train.jsonl:8)',
        'gsm8k: 1 in test, scored wrong: no number after "####" (gsm8k/test.jsonl:2)',
    )


def test_a_line_lists_twenty_places(published):
    root = published("gsm8k")
    files.lines(
        root / "train.jsonl", [*files.GSM8K["train"], *[{"question": "?", "answer": "x"}] * 23]
    )
    (line,) = Gsm8k(root=str(root)).load().left_out
    assert line.endswith("gsm8k/train.jsonl:26, and 3 more)")


def test_a_share_of_train_becomes_dev(published):
    corpus = Gsm8k(root=str(published("gsm8k")), dev_size=2).load()
    assert (len(corpus.train), len(corpus.dev)) == (4, 2)
    assert corpus.dev == Gsm8k(root=str(published("gsm8k")), dev_size=2).load().dev
    with pytest.raises(
        ConfigError,
        match=r"data\.dev_size=6 must be at least 0 and less than the number of questions, 6",
    ):
        Gsm8k(root=str(published("gsm8k")), dev_size=6).load()


def test_svamp_is_split_by_seed(published):
    root = str(published("svamp"))
    corpus = Svamp(root=root).load()
    assert (len(corpus.train), len(corpus.test)) == (8, 4)
    assert corpus.note == "SVAMP, 30% of its questions held out as test"
    assert corpus == Svamp(root=root).load() != Svamp(root=root, seed=1).load()
    both = {e.id: e for e in corpus}
    assert both["svamp/train/0"].instruction == "There are 1 cats, How many ears are there?"
    assert both["svamp/train/1"].instruction == "There are 2 cats. How many ears are there?"
    assert both["svamp/train/1"].response == "2 * 2 = 4\nThe answer is \\boxed{4}"
    assert both["svamp/train/1"].category == "Multiplication"
    capped = Svamp(root=root, limit_train=3, limit_test=2).load()
    assert (len(capped.train), len(capped.test)) == (3, 2)
    assert {e.id for e in capped.test} <= {e.id for e in corpus.test}


def test_both_layouts_of_math_give_the_same_examples(published, tmp_path):
    folder = published("math")
    corpus = Math(root=str(folder)).load()
    first = corpus.train[0]
    assert (first.id, first.category) == ("math/train/0", "Algebra")
    assert first.response == "It is $\\boxed{1}$, as $1+0=1$."  # the unchanged solution
    for split, rows in files.MATH.items():
        name = "test_first3.jsonl" if split == "test" else "train.jsonl"
        files.lines(tmp_path / "lines" / name, rows[::-1])
    assert Math(root=str(tmp_path / "lines")).load() == corpus
    own = {**files.MATH["train"][0], "answer": "seven"}
    files.lines(
        tmp_path / "lines" / "train.jsonl",
        [own, {**own, "problem": "?", "solution": "no box", "answer": ""}],
    )
    other = Math(root=str(tmp_path / "lines")).load()
    assert other.train[0].response.endswith("The answer is \\boxed{seven}")
    assert other.note == "MATH; 1 dropped from train"


@pytest.mark.parametrize("answer", ["\\frac{7", "}7{", "7 }", "7\\"])
def test_an_answer_with_unbalanced_braces_is_unparsed(published, answer):
    root = published("math")
    for split in ("train", "test"):
        rows = [
            *files.MATH[split],
            {**files.MATH[split][0], "problem": f"{split}?", "answer": answer},
        ]
        shutil.rmtree(root / split)
        files.lines(root / f"{split}.jsonl", rows)
    corpus = Math(root=str(root)).load()
    assert (len(corpus.train), len(corpus.test)) == (3, 4)
    (lost,) = (e for e in corpus.test if e.instruction == "test?")
    assert lost.response == "The answer is \\boxed{}"
    assert corpus.left_out == (
        "math: 1 dropped from train: \\boxed{} cannot contain the answer (math/train.jsonl:4)",
        "math: 1 in test, scored wrong: \\boxed{} cannot contain the answer (math/test.jsonl:4)",
    )


def test_a_test_question_in_train_is_refused_or_dropped(published):
    root = published("gsm8k")
    again = {"question": 'Tom  eats "2" of 5 figs; How many are left?', "answer": "#### 3"}
    again["answer"] = "5-2\n#### 3"
    files.lines(root / "train.jsonl", [*files.GSM8K["train"], again])
    said = fails(Gsm8k(root=str(root)))
    assert said.startswith(
        "data=gsm8k: 1 of 1 test questions are also in train, first gsm8k/test/0 (train: gsm8k/train/6)"
    )
    assert "data.overlap=drop" in said
    corpus = Gsm8k(root=str(root), overlap="drop").load()
    assert len(corpus.train) == 6 and corpus.note == "GSM8K; 1 dropped from train"
    assert corpus.left_out == ("gsm8k: 1 dropped from train: also in test (gsm8k/train/6)",)
    assert len(Gsm8k(root=str(root), allow_overlap=True).load().train) == 7


@pytest.mark.parametrize(
    ("given", "source", "said"),
    [
        ("svamp", Gsm8k, "no file train* in here; data.root must have GSM8K's train.jsonl and test.jsonl; it looks like"
         " SVAMP (data=svamp)"),
        ("math", Gsm8k, "no file train* in here"),
        ("gsm8k", Svamp, "test.jsonl:1: no field 'Body', so not a file of SVAMP; it looks like GSM8K (data=gsm8k)"),
        ("gsm8k", Math, "train.jsonl:1: no field 'problem', so not a file of MATH; it looks like GSM8K (data=gsm8k)"),
        ("bbh", Gsm8k, "it looks like BIG-Bench Hard (data=bbh)"),
        ("mmlu", Math, "it looks like MMLU (data=mmlu)"),
    ],
)  # fmt: skip
def test_another_benchmarks_files_are_recognised(published, given, source, said):
    assert said in fails(source(root=str(published(given))))


def test_bad_files_are_reported_with_their_line(published):
    root = published("gsm8k")
    good = json.dumps(files.GSM8K["train"][0])
    for bad, said in [
        ("", "train.jsonl: the file is empty"),
        (good + '\n{"question": ', "train.jsonl:2: broken JSON"),
        (
            good + '\n{"question": 3, "answer": "#### 1"}',
            "train.jsonl:2: question must be a text, not int",
        ),
        (good + '\n{"question": " ", "answer": "#### 1"}', "train.jsonl:2: question is empty"),
        (
            good + '\n{"question": "\\ud800", "answer": "#### 1"}',
            "train.jsonl:2: question is not UTF-8",
        ),
        (good + "\n[1]", "train.jsonl:2: not a JSON object"),
    ]:
        (root / "train.jsonl").write_text(bad)
        assert said in fails(Gsm8k(root=str(root)))
    svamp = published("svamp")
    for bad, said in [
        ("[1]", "SVAMP.json, entry 1: int instead of a JSON object"),
        ("[{", "SVAMP.json:1: broken JSON"),
        ("[]", "SVAMP.json: the file is empty"),
    ]:
        (svamp / "SVAMP.json").write_text(bad)
        assert said in fails(Svamp(root=str(svamp)))
    (svamp / "SVAMP.json").write_bytes(b'[\n"\xff"]')
    assert "SVAMP.json:2: not UTF-8" in fails(Svamp(root=str(svamp)))
    assert "gone: no such file or folder (data.root must have SVAMP.json)" in fails(
        Svamp(root="gone")
    )
    assert fails(Svamp()) == (
        "data=svamp needs data.root=<folder with SVAMP.json>, or data.hub=true (ChilleD/SVAMP from the hub)"
    )


def test_other_versions_of_a_split_are_not_read(published, tmp_path):
    """Published folders have such files: GSM8K's with questions between the steps, and MATH's first thousand."""
    root = published("gsm8k")
    plain = Gsm8k(root=str(root)).load()
    for split, rows in files.GSM8K.items():
        files.lines(root / f"{split}_socratic.jsonl", [{**row, "question": "?"} for row in rows])
    assert Gsm8k(root=str(root)).load() == plain
    for split, rows in files.MATH.items():
        files.lines(tmp_path / "lines" / f"{split}.jsonl", rows)
        files.lines(tmp_path / "lines" / f"{split}_first1.jsonl", rows[:1])
    assert Math(root=str(tmp_path / "lines")).load() == Math(root=str(published("math"))).load()
    (tmp_path / "lines" / "train.jsonl").rename(tmp_path / "lines" / "train_all.jsonl")
    assert "train_all.jsonl and train_first1.jsonl could each be train;" in fails(
        Math(root=str(tmp_path / "lines"))
    )


def test_problems_that_differ_in_punctuation_are_in_one_split(published):
    root = published("svamp")
    twice = [{**row, "ID": f"chal-{100 + i}", "Question": "how many ears, are there"}
             for i, row in enumerate(files.SVAMP)]  # fmt: skip
    (root / "SVAMP.json").write_text(json.dumps([*files.SVAMP, *twice]))
    for seed in range(10):
        corpus = Svamp(root=str(root), seed=seed, dev_size=2).load()
        assert (len(corpus.train), len(corpus.dev), len(corpus.test)) == (12, 4, 8)


def test_an_id_may_have_a_number_of_many_digits(published):
    root = published("svamp")
    rows = [{**row, "ID": "chal-" + "7" * (5000 - i)} for i, row in enumerate(files.SVAMP)]
    (root / "SVAMP.json").write_text(json.dumps(rows))
    train = Svamp(root=str(root)).read().train
    assert [e.instruction for e in train[:2]] == [
        "There are 12 cats. How many ears are there?",
        "There are 11 cats, How many ears are there?",
    ]


@pytest.mark.parametrize(
    ("source", "row", "said"),
    [
        (Svamp, {**files.SVAMP[0], "Equation": "1 \ud800"}, "entry 1: the rationale is not UTF-8: half a surr"),
        (Svamp, {**files.SVAMP[0], "Type": "\ud800"}, "entry 1: Type is not UTF-8: half a surrogate pair"),
        (Math, {**files.MATH["train"][0], "answer": "\ud800"}, "train.jsonl:1: the answer is not UTF-8"),
        (Math, {**files.MATH["train"][0], "type": "\ud800"}, "train.jsonl:1: type is not UTF-8"),
    ],
)  # fmt: skip
def test_half_a_surrogate_in_an_optional_field_is_refused(tmp_path, source, row, said):
    if source is Svamp:
        (tmp_path / "SVAMP.json").write_text(json.dumps([row]))
    else:
        files.lines(tmp_path / "train.jsonl", [row])
    assert said in fails(source(root=str(tmp_path)))


def test_a_test_problem_in_train_is_found_in_another_spelling(published):
    """MATH has one such problem."""
    root = published("math")
    row = {**files.MATH["test"][0], "problem": "What is  ${0} + {1}$ (Test)?"}
    (root / "train/algebra/1.json").write_text(json.dumps(row))
    corpus = Math(root=str(root)).load()
    assert corpus.note == "MATH; 1 dropped from train"
    assert "1 of 3 test questions are also in train" in fails(
        Math(root=str(root), overlap="refuse")
    )
