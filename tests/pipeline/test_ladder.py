"""The parts of a verdict against its budget."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from elrea.errors import ConfigError
from elrea.evaluation.verdict import Verdict
from elrea.pipeline.assemble import assemble
from elrea.pipeline.experiment import Experiment
from elrea.pipeline.ladder import ladder_of

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    words = ["data.train_per_board=70", "data.dev_per_board=2", "data.test_per_board=2"]
    rows = "evaluation.strategies=[compute_matched,elrea_top1,steered]"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return assemble(compose("config", [*words, rows]), "elrea", CONF)


@pytest.mark.parametrize("count", [270, 300, 340, 370, 520])
def test_the_budget_that_a_refusal_names_is_enough(experiment: Experiment, count: int) -> None:
    corpus = experiment.corpus
    few = replace(experiment, corpus=replace(corpus, train=corpus.train[:count]))
    with pytest.raises(ConfigError) as refused:
        ladder_of(few, Verdict(budget=0.5))
    (named,) = re.findall(r"say verdict\.budget=([\d.]+)", str(refused.value))
    ladder = ladder_of(few, Verdict(budget=float(named)))
    assert ladder.parts[0].rows >= 4 * 8
    assert ladder.spent <= float(named) < ladder.spent + 0.05


def test_no_budget_is_named_where_the_data_are_too_few(experiment: Experiment) -> None:
    corpus = experiment.corpus
    few = replace(experiment, corpus=replace(corpus, train=corpus.train[:100]))
    with pytest.raises(
        ConfigError, match=r"the smallest part has 12, .* or give more data"
    ) as error:
        ladder_of(few, Verdict(budget=20))
    assert "budget" not in str(error.value)
