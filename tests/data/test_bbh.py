"""BIG-Bench Hard, from small files in its layout."""

from __future__ import annotations

import json
import shutil

import pytest

from elrea.data.sources.bbh import Bbh
from elrea.data.sources.dolly import Dolly
from elrea.errors import ConfigError, DataError
from tests.data import published as files


@pytest.fixture
def given(published, write):
    train = write("train.jsonl", [{"instruction": f"{i}?", "response": "a"} for i in range(4)])
    return {"root": str(published("bbh")), "train": str(train)}


def fails(**given) -> str:
    with pytest.raises(DataError) as caught:
        Bbh(**given).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_questions_and_worked_examples(given):
    corpus = Bbh(**given).load()
    assert (corpus.name, len(corpus.train), corpus.dev, len(corpus.test)) == ("bbh", 4, (), 5)
    assert corpus.note == "BIG-Bench Hard, 2 of its 27 tasks, 3-shot; trained on other data"
    first = corpus.test[0]
    assert first.id == "bbh/test/navigate/0" and (first.source, first.category) == (
        "bbh",
        "navigate",
    )
    assert first.header == "What navigate asks."
    assert first.instruction == (
        "Q: Take 0 steps.\nOptions:\n- Yes\n- No\nA: Let's think step by step."
    )
    assert (first.response, first.judge, first.choices) == ("No", "answer", ())
    assert first.shots == (
        ("Q: First?\nA: Let's think step by step.", "One thing. It is so.\nSo the answer is x y."),
        ("Q: Second?\nOptions:\n- Yes\nA: Let's think step by step.", "At once. So the answer is (B)."),
        ("Q: Third?\nA: Let's think step by step.", "So the answer is -3."),
    )  # fmt: skip


def test_answers_without_steps(given):
    first = Bbh(**given, chain_of_thought=False, shots=2).load().test[0]
    assert first.instruction == "Q: Take 0 steps.\nOptions:\n- Yes\n- No\nA:"
    assert first.shots == (("Q: First?\nA:", "x y"), ("Q: Second?\nOptions:\n- Yes\nA:", "(B)"))
    assert first.judge == "answer"


def test_both_layouts_give_the_same_examples(given, tmp_path):
    corpus = Bbh(**given).load()
    flat = tmp_path / "flat"
    shutil.copytree(f"{given['root']}/bbh", flat)
    assert (
        Bbh(**{**given, "root": f"{given['root']}/bbh"}).load() == corpus
    )  # prompts in the parent folder
    prompts = f"{given['root']}/cot-prompts"
    assert Bbh(**{**given, "root": str(flat)}, prompts=prompts).load() == corpus
    assert "flat/cot-prompts/navigate.txt: no such file; add it, or set data.shots=0" in fails(
        **{**given, "root": str(flat)}
    )
    bare = Bbh(**{**given, "root": str(flat)}, shots=0).load()
    assert (bare.test[0].shots, bare.test[0].header) == ((), "")
    shutil.copytree(prompts, flat / "cot-prompts")
    assert Bbh(**{**given, "root": str(flat)}).load() == corpus
    assert Bbh(**{**given, "root": str(flat)}, shots=0).load().test[0].header


def test_too_few_worked_examples_are_refused(given):
    prompt = "Q: First?\nA: So the answer is x.\n\nQ: Second?\nA: So the answer is y."
    with open(f"{given['root']}/cot-prompts/navigate.txt", "w") as stream:
        stream.write(prompt)
    assert "navigate.txt: 2 worked examples are fewer than data.shots=3" in fails(**given)
    assert len(Bbh(**given, shots=2).load().test[0].shots) == 2


def test_a_question_is_never_its_own_shot(given):
    row = {"input": "Second?\nOptions:\n- Yes", "target": "(B)"}
    with open(f"{given['root']}/bbh/navigate.json", "w") as stream:
        json.dump({"examples": [row]}, stream)
    asked = Bbh(**given, tasks="navigate").load().test[0]
    assert [question.split("\n")[0] for question, _ in asked.shots] == ["Q: First?", "Q: Third?"]


def test_training_on_another_source(given, published):
    corpus = Bbh(**{**given, "train": Dolly(root=str(published("dolly")), limit_train=7)}).load()
    assert len(corpus.train) == 7 and {e.source for e in corpus.train} == {"dolly"}
    assert corpus.note.endswith("; trained on Dolly")


def test_a_test_question_in_train_is_refused_or_dropped(given, write):
    asked = "Q: Sort: b0 a0\nA: Let's think step by step."
    given["train"] = str(
        write("t.jsonl", [{"instruction": q, "response": "a"} for q in (asked, "?")])
    )
    assert "first bbh/test/word_sorting/0 (train: " in fails(**given)
    assert len(Bbh(**given, overlap="drop").load().train) == 1
    assert len(Bbh(**given, allow_overlap=True).load().train) == 2


def test_a_missing_task_is_refused(given):
    said = fails(**given, tasks=["navigat"])
    assert said.endswith("has no task 'navigat'; did you mean navigate? (2 of 27 are available)")
    assert "data.tasks is empty" in fails(**given, tasks=[])
    one = Bbh(**given, tasks=["navigate"], limit_test=2).load()
    assert len(one.test) == 2 and "1 of its 27" in one.note


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"examples": [{"input": "x", "target": "y"}, {"input": "x"}]}', "navigate.json, entry 2: no field 'target'"),
        ('{"examples": [{"input": "x", "target": ""}]}', "navigate.json, entry 1: target is empty"),
        ('{"examples": ["x"]}', "navigate.json, entry 1: not a JSON object"),
        ('{"examples": 3}', "navigate.json: no list of examples"),
        ('[{"Body": "a", "Question": "b", "Answer": 1}]', "entry 1: no list of examples, so not a task of BIG-Bench"
         " Hard; it looks like SVAMP (data=svamp)"),
        ("{", "navigate.json:1: broken JSON"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused(given, content, said):
    with open(f"{given['root']}/bbh/navigate.json", "w") as stream:
        stream.write(content)
    assert said in fails(**given)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("No questions.", 'navigate.txt: no worked example ("Q:" and "A:") in here'),
        (
            "Q: What?\nA: It is so.",
            'navigate.txt: worked example 1 must have "Q:", "A:", and "the answer is"',
        ),
        ("Q: What? So the answer is x.", "navigate.txt: worked example 1 must have"),
    ],
)
def test_a_bad_prompt_file_is_refused(given, prompt, said):
    with open(f"{given['root']}/cot-prompts/navigate.txt", "w") as stream:
        stream.write(prompt)
    assert said in fails(**given)


def test_wrong_settings_are_refused(given, published):
    with pytest.raises(ConfigError, match=r"data\.shots=4 must be 0 to 3"):
        Bbh(**given, shots=4).load()
    assert "data=bbh needs data.train: BIG-Bench Hard has no training questions" in fails(
        root=given["root"]
    )
    assert "data=bbh needs data.root=<folder with BIG-Bench Hard's bbh/" in fails(
        train=given["train"]
    )
    said = fails(**{**given, "root": str(published("mmlu"))})
    assert "no <task>.json of BIG-Bench Hard in here" in said and said.endswith("MMLU (data=mmlu)")
    assert len(files.BBH) == 2


@pytest.mark.parametrize("steps", [True, False])
@pytest.mark.parametrize(
    "asked",
    [
        "Take 1 steps.\nOptions:\n- Yes\n- No",
        "take 1 steps\n(A) Yes\n(B) No",
        "Q: Take 1 steps.\nOptions:\n- Yes\n- No",
        "Q: Take 1 steps.\nOptions:\n- Yes\n- No\nA:",
        "What navigate asks.\n\nQ: Take 1 steps.\nOptions:\n- Yes\n- No\nA: Let's think step by step.",
    ],
)
def test_a_test_question_in_train_is_found_in_any_layout(given, write, asked, steps):
    rows = [{"instruction": text, "response": "No"} for text in (asked, "Take 1 steps.", "Take 9.")]
    given |= {"train": str(write("t.jsonl", rows)), "chain_of_thought": steps}
    assert "1 of 5 test questions are also in train, first bbh/test/navigate/1 (train: " in fails(
        **given
    )
    assert len(Bbh(**given, overlap="drop").load().train) == 2


def test_another_benchmarks_folder_is_recognised_without_prompts(given, published):
    assert fails(**{**given, "root": str(published("svamp"))}).endswith(
        "SVAMP.json, entry 1: no list of examples, so not a task of BIG-Bench Hard; it looks like SVAMP (data=svamp)"
    )


def test_a_task_as_a_list_is_refused(given):
    with open(f"{given['root']}/bbh/navigate.json", "w") as stream:
        json.dump(files.BBH["navigate"], stream)
    assert fails(**given).endswith(
        'navigate.json, entry 1: a row of BIG-Bench Hard outside a task: write all rows as {"examples": [...]}'
    )
