"""A run with the paper's other rows: what needs stages, passes or clusters of its own."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.cli.commands import EXAM, QUIET, run

ROWS = [
    "base", "elrea", "source", "oracle", "moe_routing", "moe_merging", "mole", "self_consistency",
    "instruction_embedding",
]  # fmt: skip


def test_every_row_in_one_run(tiny: list[str], tmp_path: Path) -> None:
    words = [*tiny, *EXAM, QUIET, f"evaluation.strategies=[{','.join(ROWS)}]"]
    ended = run(tmp_path, *words)
    assert (ended.code, ended.err) == (0, "")
    summary = ended.summary
    assert set(summary["strategies"]) == set(ROWS)
    stages = list(summary["stages"])
    assert {"source-0", "source-1", "gates-mole"} <= set(stages)
    own = {name for name in stages if name.startswith("instruction_embedding/")}
    assert {name.partition("/")[2] for name in own} == {
        "features-train", "clusters", "expert-0", "expert-1", "features-test", "scores",
    }  # fmt: skip
    passes = {name: row["forward_passes"] for name, row in summary["strategies"].items()}
    routing = passes["elrea"] - 3
    assert routing > 0 and passes["instruction_embedding"] == 4
    assert passes["moe_routing"] == passes["moe_merging"] == 1 + routing
    assert passes["mole"] == passes["source"] == passes["self_consistency"] == 1
    assert passes["oracle"] == 2
    gates = load_file(next((tmp_path / ".elrea" / "gates").glob("*/gates.safetensors")))
    assert all(gate.shape[0] == 3 and torch.any(gate != 0) for gate in gates.values())

    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert all(list(json.loads(line)["strategies"]) == ROWS for line in lines)
    again = run(tmp_path, *words)
    assert again.summary == summary and "to do" not in again.out


def test_a_source_without_training_examples_is_said(tiny: list[str], tmp_path: Path) -> None:
    for name, source in (("train", "maths"), ("test", "law")):
        rows = [
            {"instruction": f"{name} {i}: say {i}", "response": "yes" if i % 2 else "no", "source": source,
             "choices": ["yes", "no"]}
            for i in range(24)
        ]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*tiny, "data=jsonl", "data.train=train.jsonl", "data.test=test.jsonl", QUIET]
    ended = run(tmp_path, *words, "ensemble=source")
    assert "test prompts of 'law', but no training examples of it (there are: maths)" in ended.error
    assert "train" not in ended.out, "nothing has been trained"
    all_rows = run(tmp_path, *words, "evaluation.strategies=[all]", "plan=true")
    assert all_rows.code == 0 and "source-0" not in all_rows.out
    assert "left out: source; 'law', a source of the test, has no training" in all_rows.err
