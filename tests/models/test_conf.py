"""The config files of adapters and training set every field of their classes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from elrea.config import build
from elrea.models.adapter_shape import Lora
from elrea.models.training.settings import Training

CONF = Path(__file__).parents[2] / "conf"


def composed(group: str, choice: str) -> DictConfig:
    """One choice's node, with what it inherits."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(None, [f"+{group}={choice}"])[group]


@pytest.mark.parametrize(
    ("group", "choice", "kind"),
    [
        ("adapter", "lora", Lora),
        ("adapter", "small", Lora),
        ("training", "small", Training),
        ("training", "paper", Training),
    ],
)
def test_a_choice_sets_every_field(group: str, choice: str, kind: type) -> None:
    node = composed(group, choice)
    assert isinstance(build(node, group), kind)
    assert set(node) - {"_target_"} == {field.name for field in fields(kind)}


def test_lora_takes_names_of_layers() -> None:
    node = composed("adapter", "lora")
    node.targets = ["q_proj", "v_proj"]
    assert build(node, "adapter") == Lora(targets=["q_proj", "v_proj"])
