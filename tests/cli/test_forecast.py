"""plan=true: the forecast of a run, with data and backbone on this machine and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elrea.pipeline import timing
from tests.cli.commands import EXAM, QUIET, run


def table(out: str) -> dict[str, str]:
    """The forecast on the screen."""
    lines = out.split("Expected")[1].splitlines()[3:]
    rows = [line.split(maxsplit=1) for line in lines if line.strip()]
    found = {}
    for first, rest in rows:
        if first == "memory,":
            first, rest = rest.split(maxsplit=1)
            first = f"memory, {first}"
        found[first] = rest.strip()
    return found


def test_data_on_this_machine_is_counted(tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *tiny, *EXAM, QUIET, "plan=true")
    assert (ended.code, ended.err) == (0, "")
    found = table(ended.out)
    assert found["examples"] == "32 to train, 12 to test"
    assert found["adapters"].startswith("3, of ") and found["adapters"].endswith("(r=2) each")
    assert found["training"].startswith("about ") and found["training"].endswith("2 + 1 epochs")
    assert "memory, training" in found and "memory, gradients" in found
    assert max(map(len, ended.out.splitlines())) <= 100
    assert not list((tmp_path / "out").glob("summary.json"))


def test_every_stage_has_an_expected_time_and_steps_are_measured_once(
    tiny: list[str], tmp_path: Path
) -> None:
    words = [
        *tiny,
        *EXAM,
        QUIET,
        "plan=true",
        "evaluation.by=generation",
        "evaluation.max_new_tokens=4",
    ]
    first, second = run(tmp_path, *words), run(tmp_path, *words)
    assert (first.code, first.err, second.code) == (0, "", 0)
    assert "Measuring one step" in first.out and "Measuring" not in second.out
    todo = [line.split() for line in second.out.splitlines() if line.strip().endswith("to do")]
    assert len(todo) >= 7 and {row[3] for row in todo} == {"s"}, "every kind is measured"
    shares = [float(row[2]) for row in todo]
    found = table(second.out)["time"]
    assert found.startswith("about ") and abs(float(found.split()[1]) - sum(shares)) <= 0.06 * len(
        shares
    )
    assert found == table(first.out)["time"], "the rates are in the store"
    third = run(tmp_path, *words, "evaluation.by=likelihood")
    assert (third.code, third.err) == (0, "")
    rates = [json.loads(path.read_text()) for path in tmp_path.glob(".elrea/timing/*/rates.json")]
    assert sorted("score" in found for found in rates) == [False, True], "other work is measured"


def test_a_rate_leaves_out_the_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 10.0, 12.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    clock = timing.Clock()
    for count in (4, 4, 6):
        clock.advance(count)
    assert clock.per_unit() == (14.0 - 10.0) / (4 + 6)
    assert timing.typical(range(100), lambda n: n, 4) == [12, 37, 62, 87]
    assert timing.typical([3, 1], lambda n: n, 5) == [1, 3]


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("mmlu", 270_679, 14_042), ("bbh", 270_679, 6_511), ("math", 41_905, 3_278)],
)
def test_the_papers_setting_is_planned_without_downloads(
    name: str, train: int, test: int, tmp_path: Path
) -> None:
    words = [f"+experiment=elrea_{name}", "scale=paper", "plan=true", "hydra.run.dir=out"]
    if name == "bbh":
        ended = run(tmp_path, *words)
        assert "has no worked examples: set data.prompts=<folder" in ended.error, "it could not run"
        words.append("data.prompts=prompts")
    ended = run(tmp_path, *words)
    assert (ended.code, ended.err) == (0, "")
    assert "is not here yet: stages have no keys yet" in " ".join(ended.out.split())
    stages = [line.split()[0] for line in ended.out.splitlines() if line.strip().endswith("to do")]
    assert stages[:3] == ["base", "features-train", "clusters"] and "expert-*" in stages
    # Generated answers, gates, and a strategy with features of its own were once missing from the plan.
    assert {"answers-elrea", "gates-mole", "answers-mole", "features-test"} <= set(stages)
    assert {f"instruction_embedding/{n}" for n in ("clusters", "expert-*", "scores")} <= set(stages)
    found = table(ended.out)
    assert found["examples"] == f"{train:,} to train, {test:,} to test"
    assert found["backbone"] == "2,506,172,416 parameters, 1.9 GiB, 4bit"
    assert found["adapters"] == "9,805,824 parameters (r=8) each; number not known yet"
    for stage in ("training", "gradients", "writing"):
        size, unit = found[f"memory, {stage}"].split(":")[0].split()
        assert unit == "GiB" and float(size) < 24, "the paper's setting is for a GPU of 24 GB"


def test_a_backbone_that_is_not_on_this_machine(tiny: list[str], tmp_path: Path) -> None:
    words = [*EXAM, QUIET, "hydra.run.dir=out", "clustering.k=2", "plan=true"]
    ended = run(tmp_path, "backbone=smollm2_135m", *words)
    assert (ended.code, ended.err) == (0, "")
    assert table(ended.out)["backbone"].startswith("134,515,008 parameters")
    plain = run(tmp_path, "backbone=pretrained", "backbone.name=some/model", *words)
    assert table(plain.out)["backbone"] == "not on this machine, and backbone.shape is not set"


def test_missing_data_needs_its_expected_size(tmp_path: Path) -> None:
    words = ["data=gsm8k", "data.hub=true", "plan=true", "hydra.run.dir=out"]
    ended = run(tmp_path, *words)
    assert "add +data.expected=[<train>,<test>], the numbers of examples" in ended.error
    ended = run(tmp_path, *words, "+data.expected=[7473,1319]")
    assert table(ended.out)["examples"] == "7,473 to train, 1,319 to test"


def test_tokens_by_hand(tiny: list[str], tmp_path: Path) -> None:
    """A tokenizer with one token per byte; all prompts and all responses have the same length."""
    for name, extra in (("train", {}), ("test", {"choices": ["abcd", "dcba"]})):
        rows = [{"instruction": f"{i:04}", "response": "abcd", **extra} for i in range(10)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(
            text.replace("0000", "9999") if name == "test" else text
        )
    data = [
        "data=jsonl",
        "data.train=train.jsonl",
        "data.test=test.jsonl",
        "data.allow_overlap=true",
        "data.options=text",
    ]
    ended = run(
        tmp_path, *tiny, *data, QUIET, "plan=true", "ensemble=base", "evaluation.strategies=[base]"
    )
    tokens = float(table(ended.out)["training"].split()[1])
    scored = float(table(ended.out)["scoring"].split()[1])
    per_prompt = scored / 10
    assert tokens == 2 * 10 * (per_prompt + 6), "two epochs: prompt, a space, four letters, the end"


def test_shots_count_in_scoring_and_not_in_routing(tiny: list[str], tmp_path: Path) -> None:
    """One token per byte and shots of one length: each shot adds the same number of scored tokens."""
    rows = [{"instruction": f"Is it {i:03}?", "response": "a"} for i in range(20)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*tiny, "data=jsonl", f"data.train={path}", QUIET, "plan=true", "data.test_share=0.5"]
    found = [table(run(tmp_path, *words, f"data.shots={shots}").out) for shots in (0, 1, 2)]
    scored = [float(row["scoring"].split()[1]) for row in found]
    assert scored[1] - scored[0] == scored[2] - scored[1] == 10 * len("Is it 000? a\n\n")
    assert len({row["gradients"] for row in found}) == 1


def test_texts_that_a_judge_will_read_are_counted(tiny: list[str], tmp_path: Path) -> None:
    rows = [{"instruction": f"{i} + 1?", "response": f"\\boxed{{{i + 1}}}"} for i in range(20)]
    path, judged = tmp_path / "plain.jsonl", tmp_path / "judged.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged.write_text("".join(json.dumps({**row, "judge": "maths"}) + "\n" for row in rows))
    words = [*tiny, "data=jsonl", QUIET, "plan=true", "data.test_share=0.5"]
    words += ["evaluation.max_new_tokens=24", "evaluation.strategies=[base,elrea,self_consistency]"]
    plain = table(run(tmp_path, *words, f"data.train={path}").out)
    assert plain["writing"] == "at most 1.2 k tokens: 50 texts of 24 tokens", (
        "of self_consistency alone"
    )
    found = table(run(tmp_path, *words, f"data.train={judged}").out)
    assert found["writing"] == "at most 1.68 k tokens: 70 texts of 24 tokens"
    assert "memory, writing" in found
