"""Dolly, OpenAssistant, Flan's chains of thought and LESS's data, from their published files."""

from __future__ import annotations

import pytest

from elrea.data.dolly import Dolly
from elrea.data.flan_cot import FlanCot
from elrea.data.jsonl import Jsonl
from elrea.data.less import Less
from elrea.data.oasst import Oasst
from elrea.errors import ConfigError, DataError
from tests.data import published as files


def all_of(corpus):
    return {example.id: example for example in corpus}


def fails(source) -> str:
    with pytest.raises(DataError) as caught:
        source.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_dolly(published):
    corpus = Dolly(root=str(published("dolly"))).load()
    assert (len(corpus.train), len(corpus.test)) == (9, 1)
    found = all_of(corpus)
    assert found["dolly/2"].instruction == "What is 2?"
    assert found["dolly/3"].instruction == "What is 3?\n\n3 is a number."
    assert (found["dolly/3"].response, found["dolly/3"].category) == ("A number, 3.", "open_qa")
    # data=jsonl words its rows alike
    by_hand = Jsonl(train=str(published("dolly"))).load()
    assert {e.question for e in by_hand} == {e.question for e in corpus}


def test_flan_cot(published):
    corpus = FlanCot(root=str(published("flan_cot"))).load()
    found = all_of(corpus)
    assert len(found) == 10 and len(corpus.test) == 2  # both that ask the same
    one = found["flan_cot/creak/3"]
    assert one.instruction == "Is 3 so?\nOptions:\n- yes"
    assert one.response == "It {is} 3.\nThe answer is yes."
    assert (one.source, one.category) == ("flan_cot", "creak")
    short = all_of(FlanCot(root=str(published("flan_cot")), wording="{answer}").load())
    assert short["flan_cot/ecqa/5"].response == "yes"
    for wording in ("{rationale}", "{answer} {why}"):
        with pytest.raises(ConfigError, match=r"must hold \{answer\}"):
            FlanCot(root="x", wording=wording).load()


def test_bad_flan_files(published):
    root = published("flan_cot")
    file = root / "creak_train.tsv"
    file.write_text("a\tb\tc\na\tb\n")
    said = fails(FlanCot(root=str(root)))
    assert said.endswith(
        "creak_train.tsv:2: 2 columns; there must be 3: question, answer, rationale, with a tab between"
    )
    file.write_text("a?\tb\tc\n \tb\tc\n")
    corpus = FlanCot(root=str(root)).load()
    assert corpus.left_out == (
        "flan_cot: 1 dropped from train: empty question or answer (flan_cot/creak_train.tsv:2)",
    )
    assert "data=flan_cot is not on the hub" in fails(FlanCot(hub=True))
    assert fails(FlanCot(root=str(published("dolly")))).endswith("it looks like Dolly (data=dolly)")


def test_less(published):
    root = published("less")
    corpus = Less(root=str(root), test_share=0.2).load()
    found = all_of(corpus)
    assert len(found) == 10 and len(corpus.test) == 2
    one = found["less:cot_3"]
    assert (one.instruction, one.response, one.source) == ("cot 3?", "Yes.", "cot")
    part = Less(root=str(root / "train/processed/dolly"), test_share=0.2).load()
    assert {e.source for e in part} == {"dolly"}
    assert "it looks like Dolly" in fails(Less(root=str(published("dolly"))))


def thread(example):
    return [*(text for _, text in example.history), example.instruction, example.response]


def test_open_assistants_threads(published, tmp_path):
    corpus = Oasst(root=str(published("oasst")), test_share=0.3).load()
    found = all_of(corpus)
    assert {name: thread(e) for name, e in found.items()} == {
        "oasst/b1": ["<r1>", "<a0>", "<q1>", "<b1>"],
        "oasst/a1": ["<r1>", "<a1>"],
        "oasst/c1": ["<r2>", "<c1>"],
    }
    assert found["oasst/b1"].history == (("user", "<r1>"), ("assistant", "<a0>"))
    assert found["oasst/c1"].category == "de"
    assert corpus.note == (
        "OpenAssistant, all threads, 30% of its questions held out as test; 1 dropped from train"
    )
    files.lines(tmp_path / "flat" / "x.messages.jsonl", files.OASST)
    flat = all_of(Oasst(root=str(tmp_path / "flat"), test_share=0.3).load())
    assert flat == found


def test_open_assistants_best_threads_and_languages(published):
    root = str(published("oasst"))
    best = Oasst(root=root, paths="best", test_share=0.5).load()
    assert set(all_of(best)) == {"oasst/b1", "oasst/c1"}
    english = Oasst(root=root, languages=["en"], test_share=0.5).load()
    assert set(all_of(english)) == {"oasst/b1", "oasst/a1"}
    assert "all threads, en" in english.note


def test_the_best_thread_ends_where_nobody_answered(tmp_path):
    rows = [
        files.message("r", None, "prompter"),
        files.message("a", "r", "assistant", rank=0),
        files.message("q", "a", "prompter", rank=0),
        files.message("q2", "a", "prompter", rank=1),
        files.message("b", "q2", "assistant"),
        files.message("s", None, "prompter"),
        files.message("t", "s", "assistant"),
    ]
    files.lines(tmp_path / "m.jsonl", rows)
    best = Oasst(root=str(tmp_path / "m.jsonl"), paths="best", test_share=0.5).load()
    assert set(all_of(best)) == {"oasst/a", "oasst/t"}
    every = Oasst(root=str(tmp_path / "m.jsonl"), test_share=0.5).load()
    assert set(all_of(every)) == {"oasst/b", "oasst/t"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([files.message("r", None, "user")], "m.jsonl:1: the role 'user' is neither prompter nor assistant"),
        ([files.message("r", None, "assistant")], "r: a tree's first message must be a prompter's"),
        ([files.message("r", None, "prompter"), files.message("q", "r", "prompter")], "q has the role of what it"),
        ([{"message_tree_id": "r", "prompt": 3}], "m.jsonl:1: prompt must be a message"),
        ([{"prompt": "a", "completion": "b"}], "it looks like instruction data (data=jsonl)"),
    ],
)  # fmt: skip
def test_bad_trees(tmp_path, rows, said):
    files.lines(tmp_path / "m.jsonl", rows)
    assert said in fails(Oasst(root=str(tmp_path / "m.jsonl")))


def test_data_jsonl_says_what_a_file_looks_like(published):
    said = fails(Jsonl(train=str(published("gsm8k"))))
    assert "unknown field(s) 'question'" in said and said.endswith("GSM8K (data=gsm8k)")


def test_a_line_names_its_judge(write):
    rows = [{"instruction": f"{i}?", "response": "\\boxed{1}", "judge": "maths"} for i in range(9)]
    corpus = Jsonl(train=str(write("t.jsonl", rows))).load()
    assert {e.judge for e in corpus} == {"maths"}
    rows[3]["judge"] = "me"
    assert "t.jsonl:4: no judge 'me' (there is: maths, answer, letter)" in fails(
        Jsonl(train=str(write("t.jsonl", rows)))
    )
