"""Strategies generate texts with their own mixtures, in batches of any size, and resume after a kill."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from elrea.data.examples import Example
from elrea.errors import ConfigError, DataError
from elrea.evaluation import generation
from elrea.evaluation.draws import Draws, indices_to_generate
from elrea.evaluation.generation import TEXTS, Texts, read_texts, write_texts
from elrea.evaluation.judge import Judged
from elrea.evaluation.judging import check, judge_texts, majority
from elrea.evaluation.scoring import Mixture, Outcome
from elrea.method.ensemble import decoding
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.method.ensemble.strategies.self_consistency import SelfConsistency
from elrea.method.ensemble.strategies.uniform import Uniform
from elrea.models.adapter_shape import Lora
from tests.method.ensemble.test_decoding import words
from tests.models.builders import BUILDERS, PAD, random_adapter

MEMBERS = [None, random_adapter("llama", Lora(r=2), 1), random_adapter("llama", Lora(r=3), 2)]
PROMPTS = {0: (5, 9, 3), 2: (7,), 3: (4, 4, 8, 20, 11, 30, 2), 4: (12, 6)}
WEIGHTS = torch.rand(5, 2, generator=torch.Generator().manual_seed(3))
LENGTH = 7
GREEDY = Draws()


@pytest.fixture(scope="module")
def joint() -> JointModel:
    model = BUILDERS["llama"]()
    model.generation_config = GenerationConfig()  # nothing ends a text
    return JointModel(model, MEMBERS)


def mixtures(joint: JointModel) -> dict[str, Mixture]:
    inside = LayerwiseModel(joint.model, MEMBERS[1:], MoeRouting().delta)
    return {
        "two": Mixture([2, 0], WEIGHTS),
        "one": Mixture([1], torch.ones(5, 1)),
        "inside": Mixture([], WEIGHTS, model=inside),
    }


def texts(folder: Path, joint: JointModel, batch_size: int = 3, draws: Draws = GREEDY) -> Texts:
    folder.mkdir(parents=True, exist_ok=True)
    write_texts(
        folder, PROMPTS, joint, mixtures(joint), Decoding(LENGTH), draws, words(), pad_id=PAD,
        batch_size=batch_size,
    )  # fmt: skip
    return read_texts(folder)


def test_each_strategy_writes_with_its_own_mixture(joint: JointModel, tmp_path: Path) -> None:
    """Token by token: the weighted sum of the members' logits, or the layerwise model's logits."""
    found = texts(tmp_path, joint)
    given = mixtures(joint)
    for i, prompt in PROMPTS.items():
        for name, mixture in given.items():
            ids = list(prompt)
            for _ in range(LENGTH):
                row, place = torch.tensor([ids]), torch.tensor([len(ids) - 1])
                if mixture.model is not None:
                    logits = mixture.model.logits(row, place, mixture.weights[[i]])[0]
                else:
                    each = joint.logits(row, place)[list(mixture.columns), 0]
                    logits = mixture.weights[i] @ each
                ids.append(int(logits.argmax()))
            assert found[name][i] == [words().decode(ids[len(prompt) :])], (name, i)
    assert len({tuple(found[name][3]) for name in given}) == 3, "all mixtures write the same text"


@pytest.mark.parametrize("draws", [Draws(), Draws(samples=3, temperature=2.0, seed=5)])
def test_batches_change_nothing(draws: Draws, joint: JointModel, tmp_path: Path) -> None:
    one, two, three = (texts(tmp_path / str(n), joint, n, draws) for n in (1, 3, 100))
    assert one == two == three
    assert all(len(found) == draws.samples for found in one["two"].values())
    if draws.samples > 1:
        assert len({*one["two"][0], *one["two"][2]}) == 6, (
            "prompts and texts share a random generator"
        )
        other = texts(tmp_path / "other", joint, 3, Draws(3, 2.0, seed=6))
        assert other["two"] != one["two"]


class Died(Exception):
    """Raised in place of a kill."""


@dataclass
class Counted:
    """The sizes of the batches so far; `Died` is raised instead of batch number `most`."""

    asked: list[int] = field(default_factory=list)
    most: int = 1_000


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counter, generate = Counted(), decoding.generate

    def count(joint: Any, prompts: Any, *rest: Any, **more: Any) -> Any:
        if len(counter.asked) == counter.most:
            raise Died
        counter.asked.append(len(prompts))
        return generate(joint, prompts, *rest, **more)

    monkeypatch.setattr(generation, "generate", count)
    return counter


def stopped_after(batches: int, folder: Path, joint: JointModel, counted: Counted) -> int:
    """Generates until `Died` is raised after some batches; returns the number of finished texts."""
    counted.asked, counted.most = [], batches
    with pytest.raises(Died):
        texts(folder, joint)
    written = sum(counted.asked)
    counted.asked, counted.most = [], 1_000
    return written


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("more", [b"", b'["two", 0', b'["two", 0, 0, "never recorded"]\n'])
def test_finished_batches_of_a_killed_process_are_kept(
    batches: int, more: bytes, joint: JointModel, tmp_path: Path, counted: Counted
) -> None:
    """It resumes after the last recorded batch, with the same bytes; anything after that is cut off."""
    wanted = texts(tmp_path / "whole", joint)
    whole = (tmp_path / "whole" / TEXTS).read_bytes()
    done = stopped_after(batches, tmp_path / "cut", joint, counted)
    with (tmp_path / "cut" / TEXTS).open("ab") as file:
        file.write(more)
    assert texts(tmp_path / "cut", joint) == wanted
    assert sum(counted.asked) == whole.count(b"\n") - done
    assert sorted((tmp_path / "cut" / TEXTS).read_bytes().split(b"\n")) == sorted(
        whole.split(b"\n")
    )


@pytest.mark.parametrize("damage", ["flip", "note flipped", "no note", "shorter"])
def test_texts_with_a_checksum_mismatch_are_generated_again(
    damage: str, joint: JointModel, tmp_path: Path, counted: Counted, caplog: Any
) -> None:
    wanted = texts(tmp_path / "whole", joint)
    whole = (tmp_path / "whole" / TEXTS).read_bytes()
    stopped_after(2, tmp_path / "cut", joint, counted)
    path, note = tmp_path / "cut" / TEXTS, tmp_path / "cut" / "checkpoint" / "texts.json"
    spoilt = note if damage == "note flipped" else path
    content = bytearray(spoilt.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "no note":
        note.unlink()
    else:
        spoilt.write_bytes(content[:-3] if damage == "shorter" else content)
    assert texts(tmp_path / "cut", joint) == wanted
    assert sum(counted.asked) == whole.count(b"\n"), "all of them"
    assert "all its texts are generated again" in caplog.text and str(path) in caplog.text


def test_lines_hold_any_text(tmp_path: Path) -> None:
    text = 'a\u2028b\n"\x85\u0000'
    (tmp_path / "written.json").write_text('{"mixtures": ["m", "n"], "too_long": [3]}')
    (tmp_path / TEXTS).write_text(json.dumps(["m", 0, 0, text], ensure_ascii=False) + "\n", "utf-8")
    assert read_texts(tmp_path) == {"m": {3: [], 0: [text]}, "n": {3: []}}


FREE = Example("free", "?", "yes it is", "s")
MATHS = Example("maths", "?", r"\boxed{2}", "s", judge="maths")
CHOICE = Example("choice", "?", "B", "s", choices=("A", "B"))
EXAMPLES = [FREE, MATHS, CHOICE]


def test_which_examples_need_texts() -> None:
    votes = SelfConsistency()
    assert indices_to_generate(EXAMPLES, "likelihood", votes) == []
    assert indices_to_generate(EXAMPLES, "generation", Uniform()) == [0, 1, 2]
    assert indices_to_generate(EXAMPLES, "auto", Uniform()) == [1]
    assert indices_to_generate(EXAMPLES, "auto", votes) == [0, 1], (
        "there is nothing else to vote on"
    )


def test_examples_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ensemble=sc votes on given choices, and free has none"):
        check(EXAMPLES, "likelihood", {"base": Uniform(), "sc": SelfConsistency()})
    check(EXAMPLES, "auto", {"sc": SelfConsistency()})
    other = [FREE, Example("bad", "?", "2", "s", judge="maths")]
    check(other, "likelihood", {"base": Uniform()})
    with pytest.raises(DataError, match=r"bad: judge 'maths' needs the answer in"):
        check(other, "auto", {"base": Uniform()})


@pytest.mark.parametrize("by", ["likelihood", "generation", "auto"])
def test_an_unknown_judge_is_refused_even_if_nothing_is_judged(by: str) -> None:
    examples = [*EXAMPLES, Example("rows:7", "?", "2", "s", judge="word")]
    line = r"^rows:7: unknown judge 'word'; did you mean words\? \(there is: answer, letter, maths, words\)$"
    with pytest.raises(DataError, match=line):
        check(examples, by, {"base": Uniform()})


@pytest.mark.parametrize(
    ("answers", "which"),
    [
        (["a"], 0),
        (["a", "b", "b", None, None], 1),
        (["c", "b", "b", "c"], 0),
        ([None, None, "z"], 2),
        ([None, None], 0),
    ],
)
def test_the_majority(answers: list[str | None], which: int) -> None:
    assert majority([Judged(False, answer) for answer in answers]) == which


def test_outcomes_of_texts() -> None:
    """Verdicts on texts replace those by likelihood; losses and the other examples stay."""
    likelihood = {
        "base": Outcome([None, None, 1], [True, False, True], [0.5, 0.6, 0.7]),
        "other": Outcome([None, None, 1], [True, False, True], [0.5, 0.6, 0.7]),
    }
    found = judge_texts(
        EXAMPLES, {"base": {1: ["So 2."], 2: ["The answer is A"]}, "sc": {0: ["no", "yes it is", "yes  it is"]}},
        likelihood,
    )  # fmt: skip
    assert found["base"] == Outcome(
        [None, None, 0], [True, True, False], [0.5, 0.6, 0.7],
        [None, "So 2.", "The answer is A"], [None, "2", "A"],
        [None, "2 = 2, read from the text", "letter A read from 'answer is A', not B"],
        [None, {"rouge_l": 0.5, "f1": 0.0, "exact_match": 0.0}, None],
    )  # fmt: skip
    assert found["other"] == Outcome([None, None, 1], [True, False, True], [0.5, 0.6, 0.7])
    assert found["sc"] == Outcome(
        [None] * 3, [True, False, False], [None] * 3, ["yes it is", None, None], ["yes it is", None, None],
        ["equal word for word", None, None], [{"rouge_l": 1.0, "f1": 1.0, "exact_match": 1.0}, None, None],
    )  # fmt: skip
    long = judge_texts(EXAMPLES, {"base": {0: []}}, {"base": likelihood["other"]})["base"]
    assert long.correct == [False, False, True] and long.unparsed == [], "not what likelihood says"
    silent = judge_texts(EXAMPLES, {"base": {1: ["?"], 2: ["?"]}}, {})["base"]
    assert (silent.unparsed, silent.correct) == ([1, 2], [False] * 3)
    assert found["base"].unparsed == found["other"].unparsed == []
