"""Dolly, OpenAssistant, Flan's chains of thought and LESS, from small files in their layouts."""

from __future__ import annotations

import pytest

from elrea.data.sources.dolly import Dolly
from elrea.data.sources.flan_cot import FlanCot
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.less import Less
from elrea.data.sources.oasst import Oasst
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
    # data=jsonl gives the same questions
    by_hand = Jsonl(train=str(published("dolly"))).load()
    assert {e.question for e in by_hand} == {e.question for e in corpus}


def test_flan_cot(published):
    corpus = FlanCot(root=str(published("flan_cot"))).load()
    found = all_of(corpus)
    assert len(found) == 10 and len(corpus.test) == 2  # two examples with one question
    one = found["flan_cot/creak/3"]
    assert one.instruction == "Is 3 so?\nOptions:\n- yes"
    assert one.response == "It {is} 3.\nThe answer is yes."
    assert (one.source, one.category) == ("flan_cot", "creak")
    short = all_of(FlanCot(root=str(published("flan_cot")), wording="{answer}").load())
    assert short["flan_cot/ecqa/5"].response == "yes"
    for wording in ("{rationale}", "{answer} {why}"):
        with pytest.raises(ConfigError, match=r"must have \{answer\}"):
            FlanCot(root="x", wording=wording).load()


def test_bad_flan_files_are_refused(published):
    root = published("flan_cot")
    file = root / "creak_train.tsv"
    file.write_text("a\tb\tc\na\tb\n")
    said = fails(FlanCot(root=str(root)))
    assert said.endswith(
        "creak_train.tsv:2: 2 columns instead of 3: question, answer, rationale, separated by tabs"
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
    english = Oasst(root=root, languages=["en"]).read()
    assert {example.id for example in english.train} == {"oasst/b1", "oasst/a1"}
    assert "all threads, en" in english.note


def test_the_best_thread_ends_before_an_unanswered_question(tmp_path):
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
        ([files.message("r", None, "assistant")], "r: the first message of a tree must have the role prompter"),
        ([files.message("r", None, "prompter"), files.message("q", "r", "prompter")],
         "q and the message that it replies to have the same role"),
        ([{"message_tree_id": "r", "prompt": 3}], "m.jsonl:1: prompt must be a message"),
        ([{"prompt": "a", "completion": "b"}], "it looks like instruction data (data=jsonl)"),
    ],
)  # fmt: skip
def test_bad_trees_are_refused(tmp_path, rows, said):
    files.lines(tmp_path / "m.jsonl", rows)
    assert said in fails(Oasst(root=str(tmp_path / "m.jsonl")))


def test_jsonl_recognises_another_sources_file(published):
    said = fails(Jsonl(train=str(published("gsm8k"))))
    assert "unknown field(s) 'question'" in said and said.endswith("GSM8K (data=gsm8k)")


def test_a_line_may_name_its_judge(write):
    rows = [{"instruction": f"{i}?", "response": "\\boxed{1}", "judge": "maths"} for i in range(9)]
    corpus = Jsonl(train=str(write("t.jsonl", rows))).load()
    assert {e.judge for e in corpus} == {"maths"}


def test_half_a_surrogate_in_an_optional_field_is_refused(tmp_path):
    for name in ("context", "category"):
        files.lines(tmp_path / "d.jsonl", [{**files.DOLLY[0], name: "bad \ud800 half"}])
        assert f"d.jsonl:1: {name} is not UTF-8: half a surrogate pair" in fails(
            Dolly(root=str(tmp_path / "d.jsonl"))
        )


def left_out(tmp_path, rows):
    """The lines about dropped messages, and the ids of the examples."""
    good = [files.message("ok", None, "prompter"), files.message("yes", "ok", "assistant")]
    files.lines(tmp_path / "m.jsonl", [*good, *rows])
    parts = Oasst(root=str(tmp_path / "m.jsonl")).read()
    lines = [line.replace(f"{tmp_path.name}/", "") for line in parts.drops.lines()]
    return lines, [example.id for example in parts.train]


def test_messages_outside_of_trees_are_dropped_and_counted(tmp_path):
    lines, ids = left_out(tmp_path, [
        files.message("a", "nowhere", "assistant"),
        files.message("b", "a", "prompter"),
        files.message("c", "d", "prompter"),
        files.message("d", "c", "assistant"),
        files.message("e", None, "prompter", tree_state="low_grade"),
        files.message("f", "e", "assistant", tree_state="low_grade"),
        files.message("g", "yes", "prompter", deleted=True, text=""),
        files.message("h", "g", "assistant"),
        files.message("i", "h", "prompter"),
        files.message("j", "ok", "assistant", tree_state="ready_for_export"),
    ])  # fmt: skip
    assert sorted(ids) == ["oasst/j", "oasst/yes"]
    assert sorted(lines) == [
        "oasst: 1 dropped from train: deleted message (m.jsonl:9 (g))",
        "oasst: 2 dropped from train: message of a tree not ready for export (m.jsonl:7; m.jsonl:8)",
        "oasst: 2 dropped from train: replies in a circle (m.jsonl:5 (c); m.jsonl:6 (d))",
        "oasst: 2 dropped from train: reply to a deleted message (m.jsonl:10 (h); m.jsonl:11 (i))",
        "oasst: 2 dropped from train: reply to a missing message (m.jsonl:3 (a); m.jsonl:4 (b))",
    ]


def test_a_deleted_message_of_a_tree_is_dropped_with_its_replies(tmp_path):
    last = {**files.message("c", None, "assistant"), "replies": []}
    gone = {**files.message("b", None, "assistant", deleted=True), "replies": [
        {**files.message("q", None, "prompter"), "replies": [last]}]}  # fmt: skip
    root = {**files.message("a", None, "prompter"), "replies": [gone]}
    tree = {"message_tree_id": "a", "prompt": root}
    lines, ids = left_out(
        tmp_path,
        [tree, {**tree, "tree_state": "growing"}, {"message_tree_id": "z", "prompt": last}][:2],
    )
    assert ids == ["oasst/yes"] and lines == [
        "oasst: 1 dropped from train: tree not ready for export (m.jsonl:4)",
        "oasst: 1 dropped from train: deleted message (m.jsonl:3 (b))",
        "oasst: 2 dropped from train: reply to a deleted message (m.jsonl:3 (q); m.jsonl:3 (c))",
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (files.message("a", None, "prompter", rank="x"), "m.jsonl:3: rank must be a number or null, not 'x'"),
        (files.message("a", None, "prompter", rank=[1]), "m.jsonl:3: rank must be a number or null, not [1]"),
        (files.message("a", None, "prompter", rank=float("nan")), "m.jsonl:3: rank must be a number or null, not nan"),
        ({**files.message("a", None, "prompter"), "parent_id": [1]}, "m.jsonl:3: parent_id must be a text or null"),
        (files.message("a", None, "prompter", lang="\ud800"), "m.jsonl:3: lang is not UTF-8"),
        (files.message("yes", "ok", "assistant"), "m.jsonl:3: duplicate message_id 'yes', first at "),
        ({"message_tree_id": "a", "prompt": {**files.message("a", None, "prompter"), "replies": 5}},
         "m.jsonl:3: replies must be a list of messages"),
        ({"message_tree_id": "a", "prompt": {**files.message("a", None, "prompter"), "replies": [5]}},
         "m.jsonl:3: replies must be a list of messages"),
    ],
)  # fmt: skip
def test_fields_of_the_wrong_type_are_refused(tmp_path, row, said):
    with pytest.raises(DataError) as caught:
        left_out(tmp_path, [row])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_field_in_less_is_refused(published):
    root = published("less")
    file = root / "train/processed/cot/cot_data.jsonl"
    files.lines(file, [{**files.LESS[0], "score": 1}])
    said = fails(Less(root=str(root)))
    assert (
        "cot_data.jsonl:1: unknown field(s) 'score'; LESS's rows have dataset, id and messages"
        in said
    )
    assert "looks like" not in said and said.endswith(
        "read the file by data=jsonl with data.ignore"
    )
