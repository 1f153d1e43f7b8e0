"""Odd but legal: each works, or one line says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import MistralConfig, MistralForCausalLM

from tests.cli.commands import QUIET, Ended, run
from tests.models.builders import filled
from tests.small_models import byte_tokenizer

ODD = [
    "مرحبا بالعالم، كم الساعة؟", "שלום \u202eעולם\u202c!", "👩‍👩‍👧‍👦🏳️‍🌈", "e\u0301 ≠ é", "数学 と 国語",
    "tab\tand\u2028line", "\u200b\ufeff",
    "a" * 300, "<|im_end|></s><s>[INST]", "{{ 7*7 }} ${oc.env:HOME} %s \\n", "<script>alert(1)</script>", "=1+1",
]  # fmt: skip
"""Texts that are no words: right to left, joined emoji, combining marks, marks without width, templates, markup."""


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def odd_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention in a window shorter than the prompts, tied embeddings, more rows than tokens, and no pad token."""
    folder = tmp_path_factory.mktemp("models") / "odd"
    tokenizer = byte_tokenizer()
    config = MistralConfig(
        vocab_size=len(tokenizer) + 13, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, sliding_window=8,
        tie_word_embeddings=True, pad_token_id=None,
    )  # fmt: skip
    filled(MistralForCausalLM(config)).save_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def asked(tmp_path: Path, tiny: list[str], rows: list[dict[str, Any]], *words: str) -> Ended:
    """A run on some rows for training and the odd texts as questions."""
    train = write(tmp_path / "train.jsonl", rows)
    questions = [
        {"instruction": f"{i} {text}?", "choices": [text, "other"], "answer": 0}
        for i, text in enumerate(ODD)
    ]
    test = write(tmp_path / "test.jsonl", questions)
    data = ["data=jsonl", f"data.train={train}", f"data.test={test}"]
    return run(tmp_path, *tiny, QUIET, *data, *words, plots=True)


def test_odd_texts_on_an_odd_model_in_one_cluster_of_rank_one(
    odd_model: Path, tiny: list[str], tmp_path: Path
) -> None:
    rows = [{"instruction": text, "output": text[::-1]} for text in ODD]
    rows += [{"instruction": "twice", "output": "the same"}] * 3
    words = [*tiny, f"backbone.name={odd_model}"]
    ended = asked(tmp_path, words, rows, "clustering.k=1", "clustering.min_size=1", "adapter.r=1")
    assert (ended.code, ended.err) == (0, "")
    assert ended.summary["clusters"]["sizes"] == [len(rows) - 1], "300 letters twice are too long"
    text = (tmp_path / "out" / "predictions.jsonl").read_text()
    told = [json.loads(line) for line in text.split("\n") if line]
    assert len(told) == len(ODD)
    for row in told:
        assert row["weights"] == [pytest.approx(1.0)] and 0 <= row["w_base"] <= 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page


def test_as_many_clusters_as_examples_and_a_rank_beyond_the_layers(
    tiny: list[str], tmp_path: Path
) -> None:
    rows = [{"instruction": f"{text} {i}", "output": f"{i}"} for i, text in enumerate(ODD[:4])]
    words = ["clustering.k=4", "clustering.min_size=1", "adapter.r=24", "training.batch_size=1"]
    ended = asked(tmp_path, tiny, rows, *words)
    assert (ended.code, ended.err) == (0, "") and ended.summary["clusters"]["sizes"] == [1] * 4


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"instruction": "a", "output": ""}], "train.jsonl:1: "),
        ([{"instruction": "word " * 20_000, "output": "b"}] * 3, "all 3 training examples are longer than 400 tokens"),
        ([{"instruction": "a", "output": "b"}], "1 training examples cannot make clustering.k=2 clusters"),
    ],
)  # fmt: skip
def test_what_cannot_be_says_why(
    rows: list[dict[str, Any]], said: str, tiny: list[str], tmp_path: Path
) -> None:
    assert said in asked(tmp_path, tiny, rows).error


def test_fewer_clusters_than_asked_for_are_said(tiny: list[str], tmp_path: Path) -> None:
    rows = [{"instruction": "Say it.", "response": "it"}] * 20
    rows.append({"instruction": "Say another.", "response": "x"})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    ended = asked(tmp_path / "one", tiny, rows)
    assert ended.summary["clusters"]["sizes"] == [21]
    said = "1 cluster instead of 2: the other had too few training examples (clustering.min_size)"
    advice = "clustering.pca=16"
    found = " ".join(ended.out.split())
    line = f"{said}; {advice} may set them apart"
    assert found.index(f"note: {line}") < found.index("train expert-0"), (
        "before an expert is trained"
    )
    assert found.count(line) == 2, "and with the results"
    ended = asked(tmp_path / "one", tiny, rows, "until=clusters", "hydra.run.dir=again")
    assert f"note: {line}" in " ".join(ended.out.split()), "where the clusters were here before"
    ended = asked(tmp_path / "two", tiny, rows, advice)
    found = " ".join(ended.out.split())
    assert ended.code == 0 and said in found and "may set them apart" not in found
    words = ["clustering.min_size=20", "until=clusters", "hydra.run.dir=more"]
    ended = asked(tmp_path / "one", tiny, rows, *words)
    more = f"{said}; lower it: 21 examples cannot make 2 clusters of 20"
    assert more in " ".join(ended.out.split())


def test_too_many_components_are_refused_before_training(tiny: list[str], tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}.", "response": "it"} for i in range(8)]
    said = "8 training examples have no clustering.pca=9 principal components; lower it or give more data"
    assert asked(tmp_path, tiny, rows, "clustering.pca=9").error == said
    assert not (tmp_path / ".elrea" / "base").exists()
