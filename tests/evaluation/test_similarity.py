"""Similarity of texts to responses: against a loop over all subsequences, SQuAD's script by hand, and rouge-score."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import bootstrap

from elrea.evaluation.scoring import Outcome
from elrea.evaluation.similarity import MEASURES, similarity
from elrea.evaluation.statistics import mean_interval
from elrea.evaluation.strategy_figures import similarity_figures

WORDS = ["the", "Cat", "sat,", "on", "a", "mat-1", "An", "it's"]


def pairs(count: int) -> list[tuple[str, str]]:
    drawn = random.Random(3)
    return [
        (" ".join(drawn.choices(WORDS, k=drawn.randint(1, 7))), " ".join(drawn.choices(WORDS, k=drawn.randint(1, 7))))
        for _ in range(count)
    ]  # fmt: skip


def by_hand(text: str, reference: str) -> dict[str, float]:
    """ROUGE-L from all subsequences; F1 and exact match as in SQuAD's published evaluation script."""
    one, other = (re.findall(r"[a-z0-9]+", each.lower()) for each in (text, reference))
    subsequences = {
        tuple(other[i] for i in chosen)
        for k in range(len(other) + 1)
        for chosen in combinations(range(len(other)), k)
    }
    longest = max(
        k for k in range(len(one) + 1) for chosen in combinations(one, k) if chosen in subsequences
    )
    precision, recall = longest / len(one), longest / len(other)
    rouge = 2 * precision * recall / (precision + recall) if longest else 0.0

    def normal(given: str) -> list[str]:
        bare = "".join(c for c in given.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", bare).split()

    mine, theirs = normal(text), normal(reference)
    same = sum((Counter(mine) & Counter(theirs)).values())
    f1 = 2 * same / (len(mine) + len(theirs)) if mine and theirs else float(mine == theirs)
    return {"rouge_l": rouge, "f1": f1, "exact_match": float(mine == theirs)}


def test_the_measures_by_hand() -> None:
    for text, reference in pairs(60):
        assert similarity(text, reference) == pytest.approx(by_hand(text, reference), abs=2e-6)


def test_rouge_score_agrees() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    for text, reference in pairs(60):
        theirs = scorer.score(reference, text)["rougeL"].fmeasure
        assert similarity(text, reference)["rouge_l"] == pytest.approx(theirs, abs=2e-6)


@pytest.mark.parametrize(
    ("text", "reference", "rouge", "f1", "exact"),
    [
        ("", "yes", 0, 0, 0),
        (" \n", "yes", 0, 0, 0),
        ("Yes.", "yes", 1, 1, 1),
        ("是的对", "是的，不对", 6 / 7, 6 / 7, 0),
        ("对！", "对", 1, 1, 1),
        ("Café", "Cafe\u0301", 1, 1, 1),  # composed and decomposed
        ("Café", "caf", 0, 0, 0),
        ("नमस्ते दुनिया", "नमस्ते", 2 / 3, 2 / 3, 0),
        ("it\u2019s", "it's", 1, 1, 1),
        ("กิน", "กิ", 2 / 3, 2 / 3, 0),
    ],
)  # fmt: skip
def test_any_script(text: str, reference: str, rouge: float, f1: float, exact: float) -> None:
    wanted = dict(zip(MEASURES, (rouge, f1, exact), strict=True))
    assert similarity(text, reference) == pytest.approx(wanted, abs=2e-6)


def test_the_interval_is_scipys() -> None:
    scores = np.random.default_rng(1).random(40)
    theirs = bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    assert mean_interval(scores, 0, 20_000) == pytest.approx((theirs.low, theirs.high), abs=6e-3)
    with pytest.raises(ValueError, match="items > 0"):
        mean_interval([], 0)


def outcome(*values: float | None) -> Outcome:
    rows = [None if v is None else dict.fromkeys(MEASURES, v) for v in values]
    n = len(values)
    return Outcome([None] * n, [False] * n, [None] * n, ["x"] * n, ["x"] * n, ["y"] * n, rows)


def test_figures_are_means_and_paired_differences() -> None:
    base, better = outcome(0.0, None, 0.5, 0.2), outcome(0.5, None, 1.0, 0.7)
    found = similarity_figures(better, base, 0, 500)
    assert found["n"] == 3 and found["rouge_l"] == pytest.approx(2.2 / 3, abs=1e-6)
    assert found["f1_delta_to_base"] == 0.5 and found["f1_delta_ci95"] == [0.5, 0.5]
    low, high = found["exact_match_ci95"]
    assert 0.5 <= low < 2.2 / 3 < high <= 1.0
    alone = similarity_figures(base, base, 0, 500)
    assert alone["rouge_l_delta_to_base"] is None and alone["rouge_l_delta_ci95"] is None
    more = similarity_figures(outcome(0.5, 0.5, 1.0, 0.7), base, 0, 500)  # base has no second text
    assert more["n"] == 4 and more["f1_delta_to_base"] is None
    assert similarity_figures(Outcome.blank(2), Outcome.blank(2), 0, 9) == {}
