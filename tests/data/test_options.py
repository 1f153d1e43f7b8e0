"""Options in the prompt: the wording, which rows get them, and that a question stays the same question."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pytest

from elrea.data.corpus import Corpus
from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.options import with_options
from elrea.data.overlap.question_key import QuestionKey
from elrea.data.prompts import Prompter
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.rows import RowReader
from elrea.data.sampling import with_shots
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.mix import Mix
from elrea.data.sources.mmlu import read_csv
from elrea.errors import DataError

MMLU = jinja2.Template(  # lm-eval's doc_to_text of MMLU
    "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
)
TEXTS = ["red", "blue, or so", "a (green) one", "B. black"]
ROW = {"instruction": "Which colour?", "choices": TEXTS, "answer": 2}


def read(path: Path, **settings: Any) -> tuple[Example, ...]:
    return read_files({"data.train": str(path)}, RowReader(**settings), Drops())["data.train"]


def one(write, row: Any, **settings: Any) -> Example:
    return read(write("x.jsonl", [row]), **settings)[0]


def key(example: Example) -> str:
    return QuestionKey().key_of(example)


def test_the_wording_is_mmlus(write, tmp_path):
    example = one(write, ROW)
    assert example.instruction == MMLU.render(question="Which colour?", choices=TEXTS)
    assert (example.choices, example.response, example.answer) == (("A", "B", "C", "D"), "C", 2)
    assert example.options == tuple(TEXTS) and example.named("C") == "C. a (green) one"
    path = tmp_path / "x_test.csv"
    path.write_text('Which colour?,red,"blue, or so",a (green) one,B. black,C\n')
    assert read_csv(path, "x", "test")[0].instruction == example.instruction


def test_text_keeps_the_form_without_options(write):
    example = one(write, ROW, options="text")
    assert example == replace(
        example, instruction="Which colour?", choices=tuple(TEXTS), options=()
    )
    assert example.response == "a (green) one" and with_options(example, "text") is example


@pytest.mark.parametrize(
    ("row", "instruction", "response"),
    [
        ({"question": "Which?\n", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
         "Which?\nA. x\nB. y\nAnswer:", "B"),
        ({"ctx": "A man", "endings": ["runs", "sits", "eats"], "label": 0},
         "A man\nA. runs\nB. sits\nC. eats\nAnswer:", "A"),
        ({"instruction": "Question: Which?\nAnswer:", "choices": ["x1", "x2"], "answer": "x2"},
         "Question: Which?\nA. x1\nB. x2\nAnswer:", "B"),
        ({"instruction": "Which?", "input": "A story.", "choices": ["x1", "x2"], "response": "x1"},
         "Which?\n\nA story.\nA. x1\nB. x2\nAnswer:", "A"),
        # the instruction lists them already
        ({"instruction": "Which?\n(A) one\n(B) two\n", "choices": ["one", "two"], "answer": 1},
         "Which?\n(A) one\n(B) two\n", "B"),
        ({"instruction": "Which? A) one, B) two", "choices": ["one", "two"], "answer": 0},
         "Which? A) one, B) two", "A"),
    ],
)  # fmt: skip
def test_options_come_after_the_question(write, row, instruction, response):
    example = one(write, row)
    assert (example.instruction, example.response) == (instruction, response)
    assert len(example.options) == len(example.choices)


@pytest.mark.parametrize(
    ("instruction", "labels"),
    [
        ("Which?\n(A) two\n(B) one", "BA"),
        ("Which?\nA. two\nB. one\nAnswer:", "BA"),
        ("Which? (A) two (B) one", "BA"),
        ("Which? A) two, or B) one?", "BA"),
        ("Which?\n[A] two\n[B] one\nAnswer with the letter alone.", "BA"),
        ("Which?\n- A: two.\n- B: one.\n", "BA"),
        ("Which?\na) one\nb) two", "ab"),
        ("Which?\na. two\nb. one\nYour answer:", "ba"),
        ("Which?\n1. one\n2. two\nA:", "12"),
        ("Which?\n(1) two (2) one", "21"),
    ],
)
def test_a_list_at_the_end_is_not_written_twice(write, instruction, labels):
    for answer, text in enumerate(("one", "two")):
        row = {"instruction": instruction, "choices": ["one", "two"], "answer": answer}
        example = one(write, row)
        assert example.instruction == instruction
        assert (example.choices, example.options) == (tuple(labels), ("one", "two"))
        assert example.response == labels[answer] and example.answer == answer
        assert example.named(example.response) == f"{labels[answer]}. {text}"


@pytest.mark.parametrize(
    "instruction",
    [
        "Which?\na) one\nb) two\nc) three",  # more than the choices
        "Which?\na) one\nb) two more",
        "Which?\na) one\na) two",
        "Which?\nb) one\na) two",
        "Which?\na) one\nb) one, not two",
        "First:\na) one\nb) two\nThen they left. Which?",
        "Between one and two, which?",
    ],
)
def test_another_list_is_none(write, instruction):
    example = one(write, {"instruction": instruction, "choices": ["one", "two"], "answer": 1})
    assert example.instruction == f"{instruction}\nA. one\nB. two\nAnswer:"
    assert (example.choices, example.response) == (("A", "B"), "B")


def test_numbers_are_no_list_of_numbers(write):
    row = {"instruction": "From 1.5, 2.7", "choices": ["5", "7"], "answer": 1}
    assert one(write, row).instruction == "From 1.5, 2.7\nA. 5\nB. 7\nAnswer:"


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["A) x", "B) y"], "AB"), (["A)21", "B)22"], "AB"), (["(A) x", "(B) y"], "AB"),
        (["A. x", "B. y"], "AB"), (["a) x", "b) y"], "ab"), (["1. x", "2. y"], "12"),
    ],
)  # fmt: skip
def test_choices_with_labels_of_their_own(write, texts, labels):
    row = {"instruction": "Which?", "choices": texts, "answer": 1}
    example = one(write, row)
    assert example.instruction == f"Which?\n{texts[0]}\n{texts[1]}\nAnswer:"
    assert (example.choices, example.response) == (tuple(labels), labels[1])
    assert example.options == tuple(texts) and example.named(labels[1]) == texts[1]
    assert example.stem == "Which?" and key(example) == key(one(write, row, options="text"))
    listed = "Which?\n" + "\n".join(texts)
    example = one(write, {**row, "instruction": listed})
    assert (example.instruction, example.choices) == (listed, tuple(labels))


@pytest.mark.parametrize(
    "texts", [["A) x", "C) y"], ["B) x", "A) y"], ["A) x", "y"], ["1: 2", "2: 3"], ["1.5", "2.5"], ["A) x", "b) y"]]
)  # fmt: skip
def test_choices_without_labels_in_order(write, texts):
    example = one(write, {"instruction": "Which?", "choices": texts, "answer": 1})
    assert example.instruction == f"Which?\nA. {texts[0]}\nB. {texts[1]}\nAnswer:"


def test_a_permuted_list_is_the_same_question(write):
    row = {"instruction": "Which?", "choices": ["one", "two"], "answer": 1}
    turned = one(write, {**row, "instruction": "Which?\nA. two\nB. one\nAnswer:"})
    assert turned.question == one(write, row).question and key(turned) == key(one(write, row))


@pytest.mark.parametrize(
    ("instruction", "choices"),
    [
        ("Which?\nA. one\nB. two\nAnswer:", ["A", "B"]),
        ("Which?\nOptions:\n(A) one\n(B) two", ["(A)", "(B)"]),
        ("Which?\n\nAnswer1: one Answer2: two", ["answer1", "answer2"]),
        ("Which?\n1. one\n2. two", ["1", "2"]),
        ("Which? (i) one or (ii) two", ["i", "ii"]),
        ("Is it so?", ["yes", "no"]),
        ("True or false?", ["True", "False"]),
        ("Does it follow?", ["Yes", "No", "Maybe"]),
    ],
)
def test_labels_of_a_list_and_answer_words_stay(write, instruction, choices):
    row = {"instruction": instruction, "choices": choices, "answer": 1}
    example = one(write, row)
    assert example == one(write, row, options="text")
    assert (example.instruction, example.response) == (instruction, choices[1])


def test_numbers_in_the_question_are_no_labels(write):
    example = one(write, {"instruction": "Add 1 and 2.", "choices": ["1", "2", "3"], "answer": 2})
    assert example.instruction == "Add 1 and 2.\nA. 1\nB. 2\nC. 3\nAnswer:"


def test_another_judge_reads_the_text(write):
    row = {"instruction": "Add.", "choices": ["3", "4"], "answer": 1}
    assert one(write, {**row, "judge": "maths"}).response == "4"
    assert one(write, {**row, "judge": "letter"}).response == "B"


def test_in_a_chat_the_last_user_turn_lists_the_options(write, chatml):
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Which?"), ("assistant", "two")]
    messages = [{"role": role, "content": text} for role, text in turns]
    example = one(write, {"messages": messages, "choices": ["one", "two"]})
    assert (example.instruction, example.response) == ("Which?\nA. one\nB. two\nAnswer:", "B")
    assert example.history == (("user", "Hi"), ("assistant", "Hello"))
    text = chatml.decode(Prompter(chatml, 1000).encode(example).prompt)
    turns[2:] = [("user", example.instruction)]
    whole = [{"role": role, "content": text} for role, text in turns]
    assert text == chatml.apply_chat_template(whole, tokenize=False, add_generation_prompt=True)


def test_more_choices_than_letters_are_refused():
    texts = tuple(f"text {i}" for i in range(27))
    example = Example("q", "Which?", "text 3", "s", choices=texts)
    with pytest.raises(DataError, match=r"^q: 27 choices are more than the 26 letters; set data.o"):
        with_options(example)
    assert with_options(example, "text") is example
    assert with_options(replace(example, choices=texts[:26])).response == "D"


@pytest.mark.parametrize(
    "question", ["Which colour?", "Q: Which colour?\nAnswer:", "A. Which: 1\n"]
)
def test_the_key_of_a_question_is_the_same_with_and_without_options(write, question):
    row = {**ROW, "instruction": question}
    plain = one(write, row, options="text")
    turned = {**row, "choices": TEXTS[::-1], "answer": "red"}
    for other in (one(write, row), one(write, turned), one(write, turned, options="text")):
        assert key(other) == key(plain)
    assert one(write, row).question == one(write, turned).question
    assert key(one(write, {**row, "choices": [*TEXTS[:3], "pink"]})) != key(plain)


def test_a_held_out_question_is_found_in_the_other_form(write):
    texts = ["red", "blue", "green"]
    listed = "Question: Which colour?\n(A) green\n(B) blue\n(C) red\nAnswer:"
    train = write("train.jsonl", [
        {"instruction": listed, "response": "(A)", "id": "listed"},
        {"instruction": "Which colour?", "choices": texts[::-1], "answer": 0, "id": "turned"},
        {"instruction": "Which colour?", "choices": ["red", "pink"], "answer": 0, "id": "other"},
    ])  # fmt: skip
    test = write("test.jsonl", [{"instruction": "Which colour?", "choices": texts, "answer": 1}])
    for options in ("letters", "text"):
        corpus = Jsonl(train=str(train), test=str(test), overlap="drop", options=options).load()
        assert [e.id.rpartition(":")[2] for e in corpus.train] == ["other"]
        assert corpus.options == options


def test_shots_show_options_and_never_the_same_question_in_another_order(write):
    rows = [ROW, {**ROW, "choices": TEXTS[::-1]}, {**ROW, "instruction": "Which then?"}]
    pool = read(write("pool.jsonl", rows))
    (shot,) = with_shots(pool[0], pool, 3).shots
    assert shot == (MMLU.render(question="Which then?", choices=TEXTS), "C")


def test_routing_prompts_of_one_stem_differ_by_their_options(write, byte_level):
    """As BIG-Bench Hard's snarks: 110 rows asked one question, and their features were equal."""
    stem = "Which statement is sarcastic?"
    pairs = [[f"Snow in month {i} is {how}." for how in ("nice", "fatal")] for i in range(110)]
    rows = [{"instruction": stem, "choices": pair, "answer": 1} for pair in pairs]
    path = write("snarks.jsonl", rows)
    prompter = Prompter(byte_level, 1000)
    counts = {
        options: len({e.prompt for e in prompter.routing(read(path, options=options))})
        for options in ("text", "letters")
    }
    assert counts == {"text": 1, "letters": 110}


def test_a_mix_asks_all_of_its_sources_in_one_way(write):
    rows = [{**ROW, "instruction": f"Which colour of {i}?"} for i in range(20)]
    own = Jsonl(train=str(write("a.jsonl", rows)), options="text")
    other = Jsonl(train=str(write("b.jsonl", [{**r, "answer": 1} for r in rows])), overlap="drop")
    counts = {}
    for options in (None, "letters", "text"):
        corpus = Mix(sources={"a": own, "b": other}, options=options, overlap="drop").load()
        counts[options] = {e.source: bool(e.options) for e in corpus}, corpus.options
    assert counts == {
        None: ({"a": False, "b": True}, "letters"),
        "letters": ({"a": True, "b": True}, "letters"),
        "text": ({"a": False, "b": False}, "text"),
    }


def test_only_examples_with_options_have_another_fingerprint():
    plain = Example("q", "Which?\nA. x\nB. y\nAnswer:", "A", "s", choices=("A", "B"))
    prints = {
        Corpus("c", (replace(plain, options=texts),), (), ()).fingerprint("train")
        for texts in ((), ("x", "y"), ("x", "z"))
    }
    assert len(prints) == 3
    before = "2a022792abb071dd"  # of the version whose examples had no options
    assert Corpus("c", (plain,), (), ()).fingerprint("train").startswith(before)
    assert "options" not in repr(plain)


@pytest.mark.parametrize("blank", ["\n", "\n ", "\n\t\u3000"])
def test_blank_lines_take_no_longer_than_other_text(blank):
    """Labels of a list after 20,000 of them are found in a moment."""
    text = f"Which?{blank * 20_000}\ni. red\n\u3000ii. blue"
    example = Example("x", text, "i", "s", choices=("i", "ii"))
    began = time.process_time()
    assert with_options(example) is example
    assert time.process_time() - began < 5
