"""The figures of plan=true against sums by hand, for rows that train adapters of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from elrea.pipeline.assemble import assemble
from elrea.pipeline.forecast import Sizes, forecast

CONF = Path(__file__).parents[2] / "conf"
SIZES = Sizes(32, 12, 10_000, 6_000, 500, 500, 0, 50, 1, True)
EXPERTS, WHOLE = 1, 3
"""Epochs of the experts; of base adapter and experts together."""


def figures(*rows: str) -> dict[str, str]:
    words = [
        "+experiment=elrea_mmlu", "data.boards=2", "data.train_per_board=16", "data.test_per_board=6",
        "training.epochs=2", "training.expert_epochs=1", "clustering.k=2", "adapter.r=1",
        f"evaluation.strategies=[{','.join(rows)}]",
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", words)
        experiment = assemble(cfg, "elrea", CONF)
    return dict(forecast(experiment, SIZES, 2))


@pytest.mark.parametrize(
    ("rows", "epochs", "adapters"),
    [
        ([], WHOLE, "3, of 15,360 parameters (r=1) each"),
        (["source"], WHOLE + 2, "5, of 15,360 parameters (r=1) each"),  # half of it each
        (["elrea_states", "elrea_tokens"], WHOLE + 2 * EXPERTS, "7, of 15,360 parameters (r=1) each"),
        (["elrea_source"], WHOLE + EXPERTS, "5, of 15,360 parameters (r=1) each"),
        (["tagged", "balanced"], 3 * WHOLE, "3 of 15,360 parameters (r=1), 2 of 30,720 parameters (r=2)"),
        (["steered"], WHOLE + 1 + WHOLE, "3, of 15,360 parameters (r=1) each"),
    ],
)  # fmt: skip
def test_every_adapter_is_counted_with_its_rank_and_tokens(
    rows: list[str], epochs: int, adapters: str
) -> None:
    found = figures(*rows)
    assert found["training"].startswith(f"about {epochs * 10} k tokens")
    assert found["adapters"] == adapters


def test_wide_adapters_and_projected_gradients_need_memory() -> None:
    """Rank 2 instead of 1: 16 bytes for 15,360 parameters more, and twice two gradients of 30,720 numbers."""

    def used(*rows: str) -> int:
        return int(figures(*rows)["memory, training"].partition(" MiB")[0])

    more = (16 * 15_360 + 2 * 2 * 4 * 30_720) / 2**20
    assert used("projected") - used() == pytest.approx(more, abs=1)
    assert used() < used("projected")
