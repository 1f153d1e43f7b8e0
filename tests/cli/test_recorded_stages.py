"""What each stage made when its version number was given.

A stage's key cannot see the code that makes it. Who changes what a stage makes of the same inputs raises its version
in elrea/pipeline/steps/ (else old results would pass for new ones) and records here what it makes now.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from elrea.evaluation.generation import TEXTS, read_texts
from elrea.pipeline.run import Pipeline
from elrea.store.files import read_json
from elrea.store.stage import Store
from tests.cli.test_keys import experiment

# What the experiments' defaults may change, and the record shall not.
RATE = "training.expert_learning_rate=2e-3"
# Stage -> version, and figures of what it made.
RECORDED: dict[str, tuple[int, list[float]]] = {
    "base": (1, [5.69356, 5.72207, 5.77585]),
    "features-train": (2, [100.01769]),
    "clusters": (3, [15.0, 6.21322, 15.0]),
    "expert-0": (1, [5.31245, 5.61, 5.77448]),
    "expert-1": (1, [5.33046, 5.57029]),
    "features-test": (2, [37.66848]),
    "scores": (1, [6.05574, 5.36368, 5.20198, 5.19895, 7.67755]),
}
DISTILLED: dict[str, tuple[int, list[float]]] = {
    "router": (2, [1.92099, 20.50274, 21.97774, 723.91318, 0.06509, 16.28636, 0.02063, 7.83286]),
    "routing": (1, [23.1175]),
}
WRITTEN: dict[str, tuple[int, list[float]]] = {
    "answers-elrea": (1, [12, 2105361]),
    "answers-self_consistency": (1, [60, 9426845]),
    "scores": (1, [0, 0, 3]),
}


def figures(folder: Path) -> list[float]:
    """A few numbers that change when what the stage makes changes."""
    numbers: list[float] = []
    if (folder / "curve.json").exists():
        numbers += [row["loss"] for row in read_json(folder / "curve.json")][-3:]
    for path in sorted(folder.glob("*.safetensors")):
        for _, tensor in sorted(load_file(path).items()):
            numbers.append(float(tensor.double().abs().sum()))
    if (folder / "outcomes.json").exists():
        for _, outcome in sorted(read_json(folder / "outcomes.json").items()):
            losses = [loss for loss in outcome["loss"] if loss is not None]
            numbers.append(sum(losses) / len(losses) if losses else sum(outcome["correct"]))
    if (folder / TEXTS).exists():
        for each in read_texts(folder).values():
            texts = [text for drawn in each.values() for text in drawn]
            numbers += [len(texts), sum(map(ord, "".join(texts)))]
    return [round(number, 5) for number in numbers]


def check(made: dict[str, tuple[int, list[float]]], known: dict[str, Any]) -> None:
    for name, (version, numbers) in made.items():
        recorded_version, recorded = known[name]
        assert version == recorded_version, f"{name}: version {version}; record {numbers}"
        assert numbers == pytest.approx(recorded, rel=2e-3), (
            f"{name} makes something else of the same inputs: raise its version and record {numbers}"
        )


def test_stages_make_what_they_made_under_this_version(small_model: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(experiment(small_model, RATE), Store(tmp_path))
    pipeline.run()
    other = Pipeline(experiment(small_model, RATE, "routing=distilled"), Store(tmp_path))
    other.run()
    stages = other.graph.stages | pipeline.graph.stages
    made = {name: (stage.version, figures(stage.folder)) for name, stage in stages.items()}
    known = RECORDED | DISTILLED
    assert made.keys() == known.keys(), json.dumps(made)
    check(made, known)


def test_texts_are_those_of_this_version(small_model: Path, tmp_path: Path) -> None:
    words = [RATE, "evaluation.by=generation", "evaluation.strategies=[elrea,self_consistency]"]
    it = experiment(small_model, *words, "evaluation.max_new_tokens=6")
    pipeline = Pipeline(it, Store(tmp_path))
    pipeline.run()
    stages = {name: stage for name, stage in pipeline.graph.stages.items() if name in WRITTEN}
    made = {name: (stage.version, figures(stage.folder)) for name, stage in stages.items()}
    assert made.keys() == WRITTEN.keys(), json.dumps(made)
    check(made, WRITTEN)
