"""While an adapter trains, its curve is in W&B and in curve.json already."""

from __future__ import annotations

import signal
from pathlib import Path

from elrea.errors import ElreaError
from elrea.store.files import read_json
from tests.cli.commands import Command
from tests.reporting.wandb_reader import runs

ROWS = 5


def test_the_loss_is_seen_before_the_adapter_is_done(words: list[str], tmp_path: Path) -> None:
    """The offline file of W&B and curve.json, read while the run still trains."""
    store = tmp_path / "store"
    command = Command(
        tmp_path, *words, f"store={store}", "training.epochs=120"
    )  # 480 steps: W&B gets them all
    seen: list[list[float]] = []

    def losses() -> bool:
        live = [run.column("base/loss") for run in runs(tmp_path / "out", wait=0)]
        paths = list(store.glob("base/*.partial/curve.json"))
        try:
            kept = [row["loss"] for path in paths for row in read_json(path)]
        except ElreaError:
            kept = []
        if not live or min(len(live[0]), len(kept)) < ROWS:
            return False
        seen[:] = [live[0][:ROWS], kept[:ROWS]]
        return True

    ended = command.signal_when(losses, signal.SIGINT)
    assert not list(store.glob("base/*/manifest.json")), "it was still training"
    assert ended.code == 130 and seen[0] == seen[1]
