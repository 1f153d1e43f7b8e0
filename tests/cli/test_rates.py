"""Rows of one run whose adapters are trained at different rates, or for different numbers of passes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from tests.cli.commands import EXAM, QUIET, run


def test_each_row_can_have_a_rate_of_its_own(tiny: list[str], tmp_path: Path) -> None:
    rows = "evaluation.strategies=[elrea,elrea_top1,elrea_tokens,compute_matched_passes]"
    settings = "evaluation.settings={elrea_top1:{rate:0.5},elrea_tokens:{rate:3},parameter_matched_rslora:{rate:2}}"
    words = [*tiny, *EXAM, QUIET, "ensemble=elrea_top1", "training.max_steps=4"]
    ended = run(tmp_path, *words, f"{rows[:-1]},parameter_matched_rslora]", settings)
    assert (ended.code, ended.err) == (0, "")
    stages = set(ended.summary["stages"])
    assert {
        "expert-0", "expert-1", "expert-x0.5-0", "expert-x0.5-1", "elrea_tokens/expert-x3.0-0",
        "elrea_tokens/expert-x3.0-1", "compute-matched-passes", "parameter-matched-rslora",
    } <= stages  # fmt: skip

    store, summary = tmp_path / ".elrea", ended.summary

    def weights(stage: str) -> Path:
        return store / "adapter" / summary["stages"][stage]["key"] / "adapter"

    exported = tmp_path / "out" / "ensemble" / "expert-1" / "adapter_model.safetensors"
    wanted = load_file(weights("expert-x0.5-1") / "adapter_model.safetensors")
    other = load_file(weights("expert-1") / "adapter_model.safetensors")
    found = load_file(exported)
    assert all(found[name].equal(tensor) for name, tensor in wanted.items())
    assert any(not found[name].equal(tensor) for name, tensor in other.items())

    wide = json.loads((weights("parameter-matched-rslora") / "adapter_config.json").read_text())
    assert wide["r"] == 4 and wide["use_rslora"]
    # The base adapter has rank 2 and scale 4; over the root of C = 2.
    assert abs(wide["lora_alpha"] / 4**0.5 - 4 / 2**0.5) < 1e-6
