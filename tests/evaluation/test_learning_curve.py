"""Lines in log n against scipy's, the interval's coverage in simulation, and the verdict's laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import linregress

from elrea.errors import ConfigError
from elrea.evaluation.learning_curve import Curves
from elrea.evaluation.verdict import Verdict, decide, least_rows, share_text

SHARES = [1 / 8, 1 / 4, 1 / 2]
COSTS = {"cheap": (0.5, 1.0), "wide": (0.7, 1.0), "experts": (1.0, 6.0)}
NAMES = list(COSTS)


def scores(
    full: list[float], slopes: list[float], noise: float, items: int, seed: int
) -> np.ndarray:
    """Right or wrong [candidates, 3, items]: true lines, each training off by `noise`, items of a difficulty."""
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(size=items)
    x = np.log2(SHARES)
    chance = np.array(full)[:, None] + np.array(slopes)[:, None] * x
    chance = chance + rng.normal(0, noise, chance.shape)
    # Half of an answer is the item's difficulty, which all trainings share.
    draw = np.where(
        rng.uniform(size=(*chance.shape, items)) < 0.5,
        difficulty,
        rng.uniform(size=(*chance.shape, items)),
    )
    return (draw < chance[..., None]).astype(float)


def test_lines_are_scipys() -> None:
    found = scores([0.8, 0.7, 0.6], [0.05, 0.02, 0.0], 0.02, 50, 1)
    shares = np.array([1 / 8, 1 / 4, 1 / 2])
    curves = Curves(found, shares)
    residuals = np.zeros((3, 3))
    for k in range(3):
        line = linregress(np.log2(shares), found[k].mean(1))
        assert curves.full[k] == pytest.approx(line.intercept)
        assert curves.slopes[k] == pytest.approx(line.slope)
        residuals[k] = found[k].mean(1) - line.intercept - line.slope * np.log2(shares)
    common = residuals.mean(axis=0)
    assert curves.spread == pytest.approx(np.sqrt(((residuals - common) ** 2).sum() / (2 * 1)))
    assert curves.freedom == 2


def test_the_items_part_of_the_spread_is_a_loops() -> None:
    """Each item's residuals from its own lines, one item at a time; and it is all of it where trainings are exact."""
    found = scores([0.8, 0.7, 0.6], [0.05, 0.02, 0.0], 0.0, 40, 1)
    residuals = np.zeros_like(found)
    x = np.log2(SHARES)
    for i in range(40):
        for k in range(3):
            values = found[k, :, i] - found[:, :, i].mean(axis=0)
            slope, start = np.polyfit(x, values, 1)
            residuals[k, :, i] = values - start - slope * x
    expected = (residuals.var(axis=2, ddof=1) / 40).sum() / 2
    assert Curves(found, SHARES).spread_of_items ** 2 == pytest.approx(expected)
    each = [Curves(scores([0.8, 0.7, 0.6], [0.05] * 3, 0.0, 200, s), SHARES) for s in range(300)]
    spread, items = (
        np.mean([getattr(c, n) ** 2 for c in each]) for n in ("spread", "spread_of_items")
    )
    assert spread == pytest.approx(items, rel=0.2)


def test_seeds_are_further_points_of_the_same_line() -> None:
    found = scores([0.8, 0.7], [0.05, 0.02], 0.02, 40, 2)
    twice = np.concatenate([found, found[:, :, ::-1]], axis=1)
    one, two = Curves(found, SHARES), Curves(twice, SHARES * 2)
    assert two.full == pytest.approx(one.full)
    assert (one.freedom, two.freedom) == (1, 4)


def test_a_difference_is_paired_item_by_item() -> None:
    """Without noise of training the interval is that of the items' extrapolated differences, drawn in a loop."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=60)
    a = np.stack([base + 0.1 * x for x in np.log2(SHARES)])
    lead = rng.normal(0.3, 0.2, 60)
    found = np.stack([a + lead, a])
    got = Curves(found, SHARES).difference(0, 1, seed=3, resamples=4000)
    assert got.mean == pytest.approx(lead.mean())
    means = [rng.choice(lead, 60).mean() for _ in range(4000)]
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.01)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_interval_covers_the_truth(noise: float) -> None:
    """In 95 % of 400 simulated verdicts, less three standard errors; and not by being boundless."""
    full, slopes = [0.80, 0.75, 0.72], [0.06, 0.04, 0.08]
    hits, widths = [], []
    for seed in range(400):
        got = Curves(scores(full, slopes, noise, 300, seed), SHARES).difference(0, 2, seed, 400)
        hits.append(got.low <= full[0] - full[2] <= got.high)
        widths.append(got.high - got.low)
    assert np.mean(hits) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)
    # No interval can be narrower than 2 x 1.96 true standard errors; half of an answer's variance of 0.2 is its own.
    least = 3.92 * np.sqrt(
        2 * np.linalg.norm([-2 / 3, 1 / 3, 4 / 3]) ** 2 * (0.2 * 0.5 / 300 + noise**2)
    )
    assert least < np.median(widths) < 3 * least


def test_trainings_that_vary_widen_the_interval() -> None:
    def width(noise: float) -> float:
        each = [
            Curves(scores([0.8, 0.7, 0.6], [0.05] * 3, noise, 2000, s), SHARES).difference(0, 1, s, 400)
            for s in range(20)
        ]  # fmt: skip
        return float(np.median([d.high - d.low for d in each]))

    assert width(0.05) > 2 * width(0.0)


def test_identical_candidates_are_undecided_and_the_cheapest_is_named() -> None:
    one = scores([0.7], [0.05], 0.02, 100, 5)
    order = ["experts", "wide", "cheap"]
    found = decide(order, np.repeat(one, 3, 0), SHARES, COSTS, lower_is_better=False, seed=0)
    assert (found.best, found.pick, found.decided) == ("cheap", "cheap", False)
    assert all((d.mean, d.low, d.high) == (0, 0, 0) for d in found.ahead.values())


def test_a_clear_winner_is_decided_whatever_it_costs() -> None:
    found = decide(
        NAMES, scores([0.5, 0.55, 0.95], [0.0, 0.0, 0.05], 0.0, 1000, 6), SHARES, COSTS,
        lower_is_better=False, seed=0,
    )  # fmt: skip
    assert (found.best, found.pick, found.decided, found.level) == ("experts", "experts", True, [])


def test_the_cheapest_of_those_that_are_level_is_named() -> None:
    """Wide and experts are level, and the cheap candidate is far behind both."""
    values = scores([0.9, 0.9], [0.05, 0.05], 0.0, 1000, 7)
    behind = scores([0.4], [0.0], 0.0, 1000, 8)
    found = decide(
        NAMES, np.concatenate([behind, values]), SHARES, COSTS, lower_is_better=False, seed=0
    )
    assert (found.pick, found.decided) == ("wide", False)
    assert {found.best, *found.level} == {"wide", "experts"}


def test_of_losses_the_lowest_is_best() -> None:
    values = scores([0.2, 0.5, 0.9], [0.0, 0.0, 0.0], 0.0, 1000, 9)
    found = decide(NAMES, values, SHARES, COSTS, lower_is_better=True, seed=0)
    assert (found.best, found.decided) == ("cheap", True)
    assert all(d.mean > 0 for d in found.ahead.values())


def test_curves_need_something_to_fit() -> None:
    with pytest.raises(ValueError, match="three points"):
        Curves(np.zeros((2, 2, 5)), [0.25, 0.5])
    with pytest.raises(ValueError, match="two shares"):
        Curves(np.zeros((2, 3, 5)), [0.5, 0.5, 0.5])


def test_the_ladder_keeps_to_the_budget() -> None:
    """1/8 + 1/4 + 1/2 of candidates that cost 3 ELREA runs are 2.625 runs."""
    assert Verdict(budget=2.625).ladder(3.0) == SHARES
    assert Verdict(budget=9.0).ladder(3.0) == SHARES, "never beyond half of the data"
    small = Verdict().ladder(3.0)
    assert sum(small) * 3.0 == pytest.approx(0.5)
    assert small[2] == pytest.approx(2 * small[1]) == pytest.approx(4 * small[0])
    assert sum(Verdict(seeds=2).ladder(3.0)) * 6.0 == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fractions": [0.5, 0.25, 0.125]}, "must rise, since each is a part of the next (nested)"),
        ({"fractions": [0.25, 0.25, 0.5]}, "must rise"),
        ({"fractions": [0.25, 0.5]}, "three or more shares"),
        ({"fractions": [0.25, 0.5, 1.0]}, "below 1"),
        ({"budget": 0.0}, "budget=0.0: must be above 0"),
        ({"seeds": 0}, "seeds=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Verdict(**given)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_too_few_rows_say_which_budget_would_do() -> None:
    """The budget that it names is what 32, 64 and 128 rows take, rounded up."""
    with pytest.raises(
        ConfigError, match=r"fewer than 4 for each of 8 clusters; say verdict.budget=0.85"
    ):
        Verdict().check_rows([17, 34, 68], 800, 8, 0.843)
    with pytest.raises(ConfigError, match=r"give larger verdict.fractions"):
        Verdict(fractions=[0.02, 0.1, 0.5]).check_rows([16, 80, 400], 800, 8, 3.0)
    with pytest.raises(ConfigError) as error:  # 1/8 is too little: no budget helps
        Verdict(budget=9).check_rows([20, 40, 80], 160, 8, math.inf)
    assert "budget" not in str(error.value)
    Verdict().check_rows([32, 64, 128], 800, 8, 3.0)
    assert least_rows(8) == [32, 64, 128]


def test_shares_in_words() -> None:
    assert [share_text(s) for s in (1 / 8, 0.75, 1 / 11.3)] == ["1/8", "3/4", "1/11.3"]
