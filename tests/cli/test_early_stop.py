"""training.early_stop, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elrea.models.training.early_stop import best_epoch, dev_losses
from tests.cli.commands import EXAM, QUIET, run


def test_the_base_adapter_and_who_is_trained_like_it_stop(tiny: list[str], tmp_path: Path) -> None:
    words = ["training.early_stop=1", "training.epochs=9", "training.learning_rate=0.1"]
    strategies = "evaluation.strategies=[base,elrea,compute_matched]"
    ended = run(tmp_path, *tiny, *EXAM, QUIET, *words, strategies, f"store={tmp_path / 'store'}")
    assert (ended.code, ended.err) == (0, "")
    stops = ended.summary["early_stop"]
    assert stops.keys() == {"base", "compute-matched"}
    (base,) = (tmp_path / "store").glob("base/*")
    curve = json.loads((base / "curve.json").read_text())
    losses, kept = dev_losses(curve), best_epoch(curve)
    assert stops["base"] == {
        "trained": max(losses),
        "kept": kept,
        "dev_loss": round(losses[kept], 6),
    }
    assert len(list(base.glob("epoch_*"))) == kept < 9
    assert f"base: {max(losses)} epochs trained, epoch {kept} kept" in ended.out
    # The mean over the epochs that are left; two passes for each, and the members' own.
    assert ended.summary["strategies"]["elrea"]["forward_passes"] > 2 * kept
    assert ended.summary["strategies"]["elrea"]["forward_passes"] <= 2 * kept + 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.split=dev"], "training.early_stop needs dev examples, but evaluation.split=dev scores"),
        (["data.dev_per_board=0"], "training.early_stop needs dev examples, but this data has none; set"),
        (["features.epoch_weights=[1,2]"], "features.epoch_weights has a weight for every epoch, and training.ear"),
    ],
)  # fmt: skip
def test_what_cannot_be(words: list[str], said: str, tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *tiny, *EXAM, QUIET, "training.early_stop=1", *words)
    assert said in ended.error


def test_weights_are_of_the_epochs_that_max_steps_leaves(tiny: list[str], tmp_path: Path) -> None:
    """Before anything is trained."""
    short = [*tiny, *EXAM, QUIET, "training.max_steps=1", f"store={tmp_path / 'store'}"]
    ended = run(tmp_path, *short, "features.epoch_weights=[1,2]")
    assert ended.error.startswith("features.epoch_weights: 2 weights for 1 epochs; give one per")
    assert ended.error.endswith("(training.max_steps=1 ends in epoch 1)")
    assert not list(tmp_path.glob("store/base/*"))
    assert run(tmp_path, *short, "features.epoch_weights=[1]").code == 0


def test_no_dev_example_fits(tiny: list[str], tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "train": [{"instruction": f"Say {i}", "output": f"{i}"} for i in range(16)],
        "dev": [{"instruction": "x" * 900, "output": "y"}],
        "test": [{"instruction": "Say", "choices": ["1", "2"], "answer": 0}],
    }
    for name, split in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in split)
        (tmp_path / f"{name}.jsonl").write_text(text)
    data = ["data=jsonl", *(f"data.{name}={tmp_path / name}.jsonl" for name in rows)]
    ended = run(tmp_path, *tiny, *data, QUIET, "training.early_stop=1")
    assert ended.error.startswith("all 1 dev examples are longer than 400 tokens; raise backbone")
