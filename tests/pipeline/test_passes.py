"""Passes over the training data against sums by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from elrea.pipeline.assemble import assemble
from elrea.pipeline.passes import Passes, passes

CONF = Path(__file__).parents[2] / "conf"


def counted(chosen: str, *rows: str, alone: bool, words: tuple[str, ...] = ()) -> Passes:
    every = [
        "data.boards=2", "data.train_per_board=16", "data.test_per_board=6", "data.dev_per_board=4",
        "training.epochs=3", "training.expert_epochs=2", "clustering.k=2", f"ensemble={chosen}",
        f"evaluation.strategies=[{','.join(rows)}]", *words,
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        experiment = assemble(compose("config", every), chosen, CONF)
    own = {n: s for n, s in experiment.strategies.items() if n != "base"}
    object.__setattr__(experiment, "strategies", own)
    return passes(experiment, 2, alone=alone)


@pytest.mark.parametrize(
    ("name", "whole", "prompts"),
    [
        ("compute_matched", 5, 0),
        ("parameter_matched", 5, 0),
        ("compute_matched_passes", 5 + 3, 0),
        ("elrea", 3 + 2, 3),  # a gradient at each of three checkpoints
        ("elrea_top1", 3 + 2, 3),
        ("elrea_states", 3 + 2, 0.5),  # one forward pass
        ("elrea_tokens", 3 + 2, 0),
        ("steered", 1 + 5, 1),  # a base adapter of one epoch
        ("source", 3, 0),  # from fresh, a part of the data each
        ("lora_ensembles", 3 + 3 * 3, 0),  # the base adapter is one of them
    ],
)
def test_a_strategy_alone(name: str, whole: float, prompts: float) -> None:
    assert counted(name, alone=True) == Passes(whole, prompts)


def test_what_strategies_share_counts_once() -> None:
    """Base 3, experts 2, one adapter 5, a wide one 5, and the steered one's 1 and 5."""
    rows = ("compute_matched", "parameter_matched", "elrea_top1", "steered")
    assert counted("elrea", *rows, alone=False) == Passes(3 + 2 + 5 + 5 + 6, 3 + 1)
    assert counted("compute_matched", alone=False) == Passes(3 + 5, 0), (
        "the base adapter is trained"
    )


def test_cheap_features_take_fewer_passes() -> None:
    assert counted("elrea", alone=True, words=("features.cost=cheap",)) == Passes(5, 1)


def test_tokens() -> None:
    assert Passes(5, 1.5).tokens(100, 60) == 590
