"""The error for running out of memory names the settings to lower."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from elrea.errors import ElreaError
from elrea.pipeline.graph import ORDER
from elrea.pipeline.run import memory_explained
from elrea.pipeline.step import Step
from elrea.pipeline.steps.adapters import Adapter, BaseAdapter
from elrea.pipeline.steps.answers import Answers
from elrea.pipeline.steps.features import FeaturesStep
from elrea.pipeline.steps.router import LearnedRouterStep, LearnedRouting
from elrea.pipeline.steps.scores import Scores

CONF = Path(__file__).parents[2] / "conf"


def blank(kind: type[Step]) -> Step:
    """A step without attributes; only its class is used."""
    return object.__new__(kind)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("base", BaseAdapter, "training.recompute=true"),
        ("expert-3", Adapter, "training.batch_size"),
        ("features-test", FeaturesStep, "features.batch_tokens"),
        ("instruction_embedding/features-train", FeaturesStep, "features.batch_tokens"),
        ("answers-elrea", Answers, "evaluation.batch_size"),
        ("router", LearnedRouterStep, "backbone.max_length"),
        ("routing", LearnedRouting, "backbone.max_length"),
        ("scores", Scores, "evaluation.batch_size"),
    ],
)
def test_the_error_names_what_to_lower(name: str, kind: type[Step], said: str) -> None:
    pattern = f"^{name}: out of memory; lower .*{said}"
    with pytest.raises(ElreaError, match=pattern) as caught, memory_explained(name, blank(kind)):
        torch.empty(2**50)  # a petabyte: torch's own error
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ElreaError, match=said), memory_explained(name, blank(kind)):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_explained("base", blank(BaseAdapter)):
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("kind", ORDER)
def test_the_advice_names_keys_that_exist(kind: type[Step]) -> None:
    """`routing.batch_size` was advised once, which does not exist."""
    named = re.findall(r"(\w+)\.(\w+)(?:=\w+)?", kind.oom_advice)
    assert named
    for group, key in named:
        files = (CONF / group).glob("*.yaml")
        written = any(key in OmegaConf.load(path) for path in files)
        assert written or key in _fields(group), f"{group}.{key}"


def _fields(group: str) -> set[str]:
    """Fields of the classes that a group's files name: a file may leave a key at its default."""
    found: set[str] = set()
    for path in (CONF / group).glob("*.yaml"):
        node: Any = OmegaConf.load(path)
        if "_target_" in node:
            home, _, name = node["_target_"].rpartition(".")
            found |= {field.name for field in fields(getattr(import_module(home), name))}
    return found
