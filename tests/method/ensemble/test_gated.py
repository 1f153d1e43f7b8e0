"""Which experts serve by dev: the estimator against scipy and numbers by hand, its laws, and how often it is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elrea.errors import ConfigError
from elrea.method.ensemble.dev_gate import decide
from elrea.method.ensemble.strategies.gated import GatedExperts
from elrea.method.ensemble.strategy import Setting
from elrea.method.routing.weights import Router, Routing
from elrea.models.adapter_shape import Lora
from elrea.models.training.settings import Training

DEV: list[list[float]] = [[1, 1, 0, 0, 1, 1, 1], [-1, 0, 1, -1], [], [0.25, -0.5, 0.125]]
DIFFERENCES = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=12), max_size=6)


def test_it_is_a_t_interval_with_imaginary_examples_that_favour_neither() -> None:
    """k = 4 of them: two at +√v and two at -√v, which have mean 0 and mean square v."""
    everything = [d for each in DEV for d in each]
    v = np.mean(np.square(everything))
    for each, found in zip(DEV, decide(DEV, 4, 0.9), strict=True):
        sample = [*each, *np.sqrt(v) * np.array([1, 1, -1, -1])]
        mean, size = np.mean(sample), len(sample)
        low = stats.t(df=size, loc=mean, scale=np.std(sample) / math.sqrt(size)).ppf(0.1)
        assert (found.examples, found.difference) == (len(each), np.mean(each) if each else 0)
        assert [found.shrunk, found.low] == pytest.approx([mean, low])
        assert found.shrunk == pytest.approx(found.difference * len(each) / size)
        assert found.serves == (low > 0)
    assert [v.serves for v in decide(DEV, 4, 0.9)] == [True, False, False, False]


def test_it_is_the_posterior_of_the_gain() -> None:
    """P(gain > 0 | dev) by sums over a grid of mean and variance: prior times likelihood, normal and inverse χ²."""
    k, each = 3.0, [0.6, -0.1, 0.4, 0.3, 0.0]
    (found,) = decide([each], k, 0.9)
    v = float(np.mean(np.square(each)))
    mean = np.linspace(-3, 3, 1201)[:, None]
    variance = np.exp(np.linspace(math.log(1e-3), math.log(30), 900))[None, :]
    log = stats.norm.logpdf(mean, 0, np.sqrt(variance / k))
    log = log + stats.invgamma.logpdf(variance, k / 2, scale=k * v / 2) + np.log(variance)
    log = log + sum(stats.norm.logpdf(d, mean, np.sqrt(variance)) for d in each)
    mass = np.exp(log - log.max()).sum(1)
    above = float(mass[mean[:, 0] > found.low].sum() / mass.sum())
    assert above == pytest.approx(0.9, abs=0.005), "it is the 10 % quantile of the posterior"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(DIFFERENCES, st.floats(0.5, 30), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_whole_is_never_worse_than_the_trunk_on_dev(dev, k, confidence) -> None:
    found = decide(dev, k, confidence)
    gain = math.fsum(d for each, v in zip(dev, found, strict=True) if v.serves for d in each)
    assert gain >= 0
    for each, verdict in zip(dev, found, strict=True):
        assert not verdict.serves or sum(each) > 0
        assert abs(verdict.shrunk) <= abs(verdict.difference)
    stricter = decide(dev, k, 0.99)
    assert all(v.serves for v, s in zip(found, stricter, strict=True) if s.serves)


def test_without_dev_examples_the_trunk_answers() -> None:
    assert not any(verdict.serves for verdict in decide([[], []], 10, 0.5))
    assert not any(verdict.serves for verdict in decide([[0, 0, 0]], 10, 0.5)), "no difference"
    assert decide([], 10, 0.9) == []
    (one,) = decide([[1]], 10, 0.9)
    assert not one.serves, "one example decides nothing"


def drawn(gain: float, count: int, draws: np.random.Generator) -> list[list[float]]:
    """Of 8 clusters, correctness differences of `count` dev examples each; a quarter of them differ."""
    right, wrong = (0.25 + gain) / 2, (0.25 - gain) / 2
    found: list[list[float]] = draws.choice(
        [1.0, -1.0, 0.0], size=(8, count), p=[right, wrong, 0.75]
    ).tolist()
    return found


@pytest.mark.parametrize(
    ("gain", "count", "least", "most"),
    [
        (0.2, 20, 0.5, 1.0),  # experts that help a lot serve mostly
        (0.2, 60, 0.95, 1.0),
        (0.0, 20, 0.0, 0.10),  # useless ones seldom: never more than 1 - confidence
        (0.0, 60, 0.0, 0.12),
        (-0.08, 20, 0.0, 0.03),  # harmful ones almost never
        (-0.08, 60, 0.0, 0.02),
    ],
)
def test_how_often_experts_serve(gain: float, count: int, least: float, most: float) -> None:
    """Share of clusters, over 150 draws, by the default settings."""
    draws, made = np.random.default_rng(0), GatedExperts()
    served = [v.serves for _ in range(150) for v in made.verdicts(drawn(gain, count, draws))]
    assert least <= np.mean(served) <= most


COSINES = torch.tensor([[0.2, 0.6, 0.1], [0.9, -0.3, 0.4], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
ROUTING = Routing(COSINES, Router())


def test_the_nearest_expert_answers_where_it_serves() -> None:
    made = GatedExperts(serves=[0, 2])
    assert made.members(ROUTING) == ["base", "expert-0", "expert-1", "expert-2"]
    # The last prompt has no feature: the trunk.
    wanted = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    assert made.weights(ROUTING).tolist() == wanted
    assert GatedExperts(serves=[]).weights(ROUTING)[:, 0].tolist() == [1] * 4
    assert GatedExperts().serving([0, 2]) == made and not made.undecided
    with pytest.raises(ValueError, match="not decided"):
        GatedExperts().weights(ROUTING)
    with pytest.raises(ConfigError, match="no cluster 3; there are 3, from 0"):
        GatedExperts(serves=[1, 3]).weights(ROUTING)


def test_the_trunk_may_be_a_wide_adapter() -> None:
    training = Training(epochs=2, expert_epochs=2, learning_rate=0.1, expert_learning_rate=0.01)
    setting = Setting(Lora(r=2, alpha=8.0), training, 3)
    wide = GatedExperts(trunk="wide", rate=0.5)
    specs = wide.adapters(setting)
    assert list(specs) == wide.members(ROUTING)
    assert wide.members(ROUTING)[:2] == ["parameter-matched", "expert-x0.5-0"]
    trunk = specs["parameter-matched"]
    assert (trunk.lora.r, trunk.epochs, trunk.examples) == (6, 4, "all")
    assert trunk.learning_rate == pytest.approx(0.025)
    assert list(GatedExperts().adapters(setting)) == ["expert-0", "expert-1", "expert-2"]


@pytest.mark.parametrize(
    "wrong",
    [{"confidence": 0.4}, {"confidence": 1.0}, {"shrinkage": 0.0}, {"serves": [-1]}, {"rate": 0.0},
     {"trunk_rate": 0.0}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name}="):
        replace(GatedExperts(), **wrong)
