"""The one table of all studies: its intervals against by-hand computations, its forms against each other."""

from __future__ import annotations

import itertools
import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from elrea.errors import DataError
from elrea.evaluation.seed_intervals import seeds_interval, seeds_items_interval
from elrea.evaluation.statistics import paired_interval
from elrea.reporting import compare_table as tables
from elrea.reporting.compare_markdown import markdown, page
from elrea.reporting.compare_table import Scores
from tests.experiments.sweeps import SCORE, write_job

DRAW = np.random.default_rng(0)
BASE = (DRAW.random((3, 50)) < 0.5).astype(float)
ELREA = np.maximum(BASE, DRAW.random((3, 50)) < 0.3).astype(float)
SCORES = Scores([0, 1, 2], {"base": BASE, "elrea": ELREA}, ("4",), {}, {"base": 1.0})


def table(**more: Any) -> tables.Comparison:
    given: dict[str, Any] = {
        "command": "a command",
        "data": "d",
        "settings": ["k"],
        "resamples": 200,
    }
    return tables.compare([SCORES], **given | more)


def test_the_seeds_interval_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, sd 1, and t(0.975, 2) = 4.302653 from any table of Student's t."""
    half = 4.302653 / math.sqrt(3)
    assert seeds_interval([1, 2, 3]) == pytest.approx((2 - half, 2 + half), abs=1e-6)
    assert seeds_interval([0.5]) is None
    assert seeds_interval([0.5, 0.5]) is None, (
        "two equal values do not show how far seeds are apart"
    )


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_seeds_interval_is_scipys(count: int) -> None:
    each = np.random.default_rng(count).normal(0.03, 0.02, count)
    wanted = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert seeds_interval(each) == pytest.approx((wanted.low, wanted.high))


def test_the_bootstrap_over_seeds_and_items_by_enumeration() -> None:
    """Two seeds, three items: all 2² · 3³ resamples, each as likely as the others."""
    cells = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, -1.0]])
    every = sorted(
        cells[np.ix_(seeds, items)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for items in itertools.product(range(3), repeat=3)
    )
    found = seeds_items_interval(cells, resamples=200_000)
    assert found == pytest.approx(np.quantile(every, [0.025, 0.975], method="inverted_cdf"))
    assert seeds_items_interval(cells[:1]) is None


def test_equal_seeds_add_nothing_to_the_bootstrap_over_items() -> None:
    cells = (ELREA - BASE)[:1].repeat(3, axis=0)
    both = seeds_items_interval(cells, resamples=40_000)
    assert both == pytest.approx(
        paired_interval(cells, 0 * cells, 1, 40_000), abs=0.021
    )  # one item of 50


def test_equal_items_leave_the_seeds_alone() -> None:
    """Every item of a seed has the same difference: the mean of two draws of -1 and 1 is -1, 0 or 1."""
    cells = np.array([[1.0] * 5, [-1.0] * 5])
    assert seeds_items_interval(cells) == (-1.0, 1.0)


def test_figures_by_hand() -> None:
    base, elrea = table(leader="elrea", baseline="base").rows
    assert base.mean == pytest.approx(BASE.sum() / 150, abs=1e-6)
    assert base.per_seed == pytest.approx([seed.sum() / 50 for seed in BASE], abs=1e-6)
    assert (base.setting, base.strategy, base.items, base.passes) == ({"k": "4"}, "base", 50, 1.0)
    lead, gain = base.leader_minus_row, elrea.row_minus_baseline
    assert lead is not None and lead == gain, "ELREA less the base adapter, from either side"
    each = [(e.sum() - b.sum()) / 50 for e, b in zip(ELREA, BASE, strict=True)]
    assert lead.per_seed == pytest.approx(each, abs=1e-6)
    assert lead.mean == pytest.approx(sum(each) / 3, abs=1e-6)
    assert lead.items_ci95 == pytest.approx(paired_interval(ELREA, BASE, 0, 200), abs=1e-6)
    wanted = stats.ttest_rel(ELREA.mean(1), BASE.mean(1)).confidence_interval(0.95)
    assert lead.seeds_ci95 == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert base.row_minus_baseline is None and elrea.leader_minus_row is None


def test_one_seed_has_no_interval_over_seeds() -> None:
    one = Scores([7], {"base": BASE[:1], "elrea": ELREA[:1]})
    found = tables.compare([one], command="c", baseline="base", resamples=50)
    gain = found.rows[1].row_minus_baseline
    assert gain is not None and gain.seeds_ci95 is None and gain.seeds_items_ci95 is None
    assert markdown(found).splitlines()[0].endswith("| minus base | 95 %, items |")


def test_markdown_has_a_cell_for_every_heading() -> None:
    found = table(leader="elrea", baseline="base")
    head, rule, base, elrea = markdown(found, {"price": ["1", "2"]}).splitlines()
    assert head == (
        "| k | strategy | accuracy, % | seed 0 | seed 1 | seed 2 | elrea minus it | 95 %, items | 95 %, seeds | "
        "95 %, both | minus base | 95 %, items | 95 %, seeds | 95 %, both | passes | price |"
    )
    assert {line.count("|") for line in (head, rule, base, elrea)} == {17}
    lead = found.rows[0].leader_minus_row
    assert (
        lead is not None
        and f"| {100 * lead.mean:+.1f} | [{100 * lead.items_ci95[0]:+.1f}, " in base
    )
    assert base.endswith("| - | - | - | - | 1.0 | 1 |") and elrea.endswith("| - | 2 |")
    many = Scores(list(range(6)), {"base": np.eye(6)})
    assert "16.7 to 16.7" in markdown(tables.compare([many], command="c"))


def test_a_page_has_the_data_and_the_command() -> None:
    first, _, *_, last = page(table(leader="elrea")).splitlines()
    assert (first, last) == ("d; 50 test items; seeds 0, 1, 2", "    a command")


def test_losses_are_nats_and_macro_has_a_column() -> None:
    loss = Scores([0, 1], {"base": np.array([[2.0, 3.0], [2.5, 3.5]])})
    assert "| base | 2.750 | 2.500 | 3.000 |" in markdown(
        tables.compare([loss], command="c", measure="loss")
    )
    macro = Scores([0, 1], {"base": BASE[:2]}, macro={"base": [0.25, 0.5]})
    found = tables.compare([macro], command="c")
    assert (found.rows[0].macro, found.rows[0].macro_per_seed) == (0.375, [0.25, 0.5])
    assert "| accuracy, % | macro |" in markdown(found)
    assert "| 37.5 |" in markdown(found)


def test_json_goes_and_comes_back(tmp_path: Path) -> None:
    found = table(leader="elrea").model_copy(update={"details": {"own": [1, None]}})
    path = tmp_path / "results.json"
    tables.save(found, path)
    assert tables.load(path) == found
    assert sum(line.startswith("    {") for line in path.read_text().splitlines()) == 2, (
        "a line per row"
    )
    assert json.loads(path.read_text())["schema_name"] == "elrea-comparison"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version"),
        ({"rows": [{"strategy": "base"}]}, r"rows\.0\.setting: Field required"),
        ({"price": 3}, "price: Extra inputs"),
    ],
)
def test_another_schema_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "results.json"
    tables.save(table(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=rf"results\.json: not a comparison of version 1: {said}"):
        tables.load(path)


def test_every_published_comparison_follows_the_schema() -> None:
    studies = Path(__file__).parents[2] / "experiments"
    found = [
        path
        for path in sorted(studies.rglob("*.json"))
        if "schema_name" in (parsed := json.loads(path.read_text())) and parsed["schema_name"]
    ]
    assert len(found) >= 12
    for path in found:
        assert tables.load(path).rows, path


def test_a_strategy_that_was_not_scored_is_named() -> None:
    with pytest.raises(DataError, match=r"strategy 'elra' was not scored.*there is: base, elrea"):
        table(leader="elra")


def test_a_part_has_one_value_of_the_first_setting() -> None:
    other = Scores([0, 1, 2], {"base": ELREA}, ("8",))
    found = tables.compare([SCORES, other], command="c", settings=["k"])
    assert [row.setting for row in tables.part(found, "8").rows] == [{}]
    assert tables.part(found, "8").settings == []


def test_a_sweep_is_read_with_macro_and_passes(tmp_path: Path) -> None:
    for seed, right in ((0, 1), (1, 3)):
        rows = [
            {
                "id": str(i),
                "answer": "x",
                "strategies": {"base": {"correct": i < right, "loss": 1.0}},
            }
            for i in range(4)
        ]
        score = {**SCORE, "forward_passes": 2 + seed, "macro": seed / 2}
        write_job(tmp_path, seed, rows, {"strategies": {"base": score}})
    keys, (scores,), jobs = tables.read_sweep(tmp_path)
    assert (keys, scores.setting, scores.seeds, len(jobs)) == ([], (), [0, 1], 2)
    row = tables.compare([scores], command="c", data=jobs[0]["data"]).rows[0]
    assert (row.mean, row.per_seed) == (0.5, [0.25, 0.75])
    assert (row.passes, row.macro, row.macro_per_seed) == (2.5, 0.25, [0.0, 0.5])


def test_a_recorded_command_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that imports its neighbours runs with `python -m` alone."""
    script = Path(tables.__file__)
    monkeypatch.setattr(sys, "argv", [str(script), "a b"])
    monkeypatch.chdir(script.parent)
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # of `python <file>`
    assert tables.command_line() == f"python {script.name} 'a b'"
    monkeypatch.setitem(sys.modules, "__main__", tables)  # of `python -m <module>`
    assert tables.command_line() == "python -m elrea.reporting.compare_table 'a b'"


def test_the_commands_of_committed_tables_can_be_typed() -> None:
    found = [
        (path, command.split()[1:3])
        for path in sorted(Path("experiments").rglob("*.json"))
        if isinstance(command := json.loads(path.read_text()).get("command"), str)
    ]
    assert len(found) > 15
    for path, (first, second) in found:
        if first == "-m":
            assert find_spec(second), path
        else:
            assert "from experiments" not in Path(first).read_text(), path
