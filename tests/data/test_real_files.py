"""The real published files (`tests.real_files`): how many examples they give, and what is dropped."""

from __future__ import annotations

import pytest

from elrea.data.sources.bbh import Bbh
from elrea.data.sources.boxed import last_boxed
from elrea.data.sources.flan_cot import FlanCot
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.mathqa import Mathqa
from elrea.data.sources.maths import Maths
from elrea.data.sources.mix import Mix
from tests.real_files import real_data, real_model, skipped_tests


def test_bbh(real, write):
    train = write("train.jsonl", [{"instruction": "1 + 1?", "response": "2"}])
    corpus = Bbh(root=str(real("bbh")), train=str(train)).load()
    assert len(corpus.test) == 14 * 250
    assert corpus.note == "BIG-Bench Hard, 14 of its 27 tasks, 3-shot; trained on other data"
    assert {len(e.shots) for e in corpus.test} == {3}
    assert all("the answer is" in way for e in corpus.test for _, way in e.shots)
    assert corpus.test[0].header == "Evaluate the result of a random Boolean expression."
    plain = Bbh(root=str(real("bbh")), train=str(train), chain_of_thought=False, tasks="navigate")
    assert [answer for _, answer in plain.load().test[0].shots] == ["No", "No", "Yes"]


@pytest.fixture(scope="module")
def combined(real):
    sources = Maths().sources
    sources["mathqa"] = Mathqa(
        train_split="dev", limit_train=26287, limit_test=998
    )  # its overlap is "drop" by default
    real("gsm8k")
    return Maths(sources, root=str(real("math").parent)).load()


def test_math_combined(combined):
    train, test = ({s: sum(e.source == s for e in part) for s in ("math", "gsm8k", "svamp", "mathqa")}
                   for part in (combined.train, combined.test))  # fmt: skip
    assert train == {"math": 4324, "gsm8k": 7441, "svamp": 677, "mathqa": 4421}
    assert test == {"math": 1000, "gsm8k": 1000, "svamp": 280, "mathqa": 998}  # the paper's 3,278
    assert (
        [line.partition(" (")[0] for line in combined.left_out]
        == [
            "mathqa: 20 dropped from train: the answer is not one value",
            "mathqa: 17 dropped from train: the answer has no number",
            "mathqa: 3 in test, scored wrong: the answer is not one value",  # of 11; the limit removes eight
            "mathqa: 1 in test, scored wrong: the answer has no number",  # of 11
            "math: 1 dropped from train: also in test",
            "mathqa: 17 dropped from train: also in test",
        ]
    )
    assert not any("<<" in e.response for e in combined if e.source == "gsm8k")
    assert {e.source for e in combined.test if not last_boxed(e.response)} == {"mathqa"}
    assert all(last_boxed(e.response) for e in combined.train)


def test_mathqas_magnitudes_and_pi(real):
    """Magnitudes and pi in the options are not units."""
    train = Mathqa(root=str(real("mathqa")), train_split="dev").load().train
    answers = {int(e.id.rpartition("/")[2]): last_boxed(e.response) for e in train}
    assert [answers[i] for i in (213, 750, 1138)] == ["1000000000", r"16 \pi", r"8 \pi"]
    assert answers[1905] == answers[1991] == r"144 \pi"


def test_flan_cot(real):
    corpus = FlanCot(root=str(real("flan_cot")), test_share=0.1).load()
    assert len(corpus.train) + len(corpus.test) == 22_158 and not corpus.left_out
    assert {e.category for e in corpus.train} == {"creak", "ecqa", "sensemaking", "strategyqa"}


def test_a_mix(real):
    flan = FlanCot(root=str(real("flan_cot") / "strategyqa_train.tsv"), limit_train=300)
    prompted = Jsonl(train=str(real("t0") / "ag_news_classify.jsonl"), limit_train=100)
    corpus = Mix({"flan_cot": flan, "t0": prompted}, test_per_source=20).load()
    assert (len(corpus.train), len(corpus.test)) == (400, 40)
    assert not any("<|endoftext|>" in e.response for e in corpus)


def test_the_summary_says_how_many_tests_real_files_would_add(monkeypatch, tmp_path):
    reasons = ["Skipped: not installed"]
    for variable, find, place in (
        ("ELREA_DATA", real_data, "mmlu"),
        ("ELREA_DATA", real_data, "bbh"),
        ("ELREA_MODELS", real_model, "TinyStories-656K"),
    ):
        monkeypatch.setenv(variable, str(tmp_path))
        with pytest.raises(pytest.skip.Exception) as skipped:
            find(place)
        reasons.append(f"Skipped: {skipped.value}")
    assert reasons[1] == (
        "Skipped: no mmlu: set ELREA_DATA=<folder with mmlu/, gsm8k/, ...> to run it"
    )
    assert skipped_tests(reasons) == (
        "ELREA_DATA=<folder with mmlu/, gsm8k/, ...> would add 2 tests,"
        " ELREA_MODELS=<folder with TinyStories-656K/> would add 1 test"
    )
    assert skipped_tests(reasons[:1]) == ""
    (tmp_path / "mmlu").mkdir()
    assert real_data("mmlu") == tmp_path / "mmlu"
