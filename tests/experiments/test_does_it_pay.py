"""The study of verdicts: its figures by hand, and that it leaves finished settings alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elrea.errors import StoreError
from experiments.does_it_pay import study


def setting(
    size: int, conflict: float, gradient: float, truth: dict[str, float], pick: str
) -> dict[str, Any]:
    ahead = {name: {"mean": 0.05, "ci95": [-0.02, 0.08]} for name in truth if name != "steered"}
    decision = {"best": "steered", "pick": pick, "decided": False, "best_ahead": ahead}
    verdict = {"spent": 2.9, "accuracy": decision, "loss": {"best": "elrea"}}
    return {
        "size": size, "conflict": conflict, "rank": 1, "truth": truth, "gradient_conflict": gradient,
        "verdicts": {"halves": verdict},
    }  # fmt: skip


EXPERTS_WIN = {"elrea": 0.70, "elrea_top1": 0.72, "parameter_matched": 0.68, "steered": 0.75}
WIDE_WINS = {"elrea": 0.60, "elrea_top1": 0.60, "parameter_matched": 0.66, "steered": 0.65}


def test_the_figures_of_a_setting() -> None:
    row = study.row_of(setting(100, 1, 0.4, EXPERTS_WIN, "parameter_matched"))
    assert row["best"] == "steered"
    assert row["regret_elrea"] == pytest.approx(5.0)
    assert row["regret_wide"] == pytest.approx(7.0)
    assert row["experts_less_wide"] == pytest.approx(4.0)
    assert row["halves"]["regret_pick"] == pytest.approx(7.0)
    assert row["halves"]["regret_best"] == 0.0
    assert row["halves"]["covered"] == [True, True, True]  # leads of 5, 3 and 7 points


def test_conflict_alone_is_held_against_settings_that_did_not_choose_its_threshold() -> None:
    rows = [
        {"gradient_conflict": conflict, "experts_less_wide": gain}
        for conflict, gain in ((0.1, -4.0), (0.2, -2.0), (0.5, 3.0), (0.6, 5.0))
    ]
    found = study.predicted(rows)
    assert found["spearman"] == pytest.approx(1.0)
    assert found["regret"] == 0.0
    assert found["regret_always_experts"] == pytest.approx(1.5)
    assert found["regret_always_wide"] == pytest.approx(2.0)
    assert study.predicted(rows[:2]) == {}


def test_the_table_is_of_the_settings_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SETTINGS", tmp_path / "settings")
    monkeypatch.setattr(study, "HERE", tmp_path)
    (tmp_path / "settings").mkdir()
    for name, one in {
        "a": setting(100, 1, 0.4, EXPERTS_WIN, "steered"),
        "b": setting(100, 0, 0.1, WIDE_WINS, "parameter_matched"),
    }.items():
        (tmp_path / "settings" / f"{name}.json").write_text(json.dumps(one))
    study.table()
    means = json.loads((tmp_path / "results.json").read_text())["means"]
    assert (means["settings"], means["of"]) == (2, 24)
    assert means["halves"]["regret_pick"] == 0.0
    assert means["halves"]["regret_best"] == pytest.approx(0.5)
    assert means["regret_wide"] == pytest.approx(3.5)
    assert "2 of 24 settings" in (tmp_path / "table.md").read_text()


def test_a_setting_that_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(study, "SETTINGS", tmp_path)

    def command(words: list[str], may_fail: bool = False) -> str:
        made.append(words[1])
        return ""

    monkeypatch.setattr(study, "_command", command)
    for size, conflict, rank in study.settings()[:-1]:
        (tmp_path / f"{size}-conflict{conflict}-rank{rank}.json").write_text("{}")
    with pytest.raises(
        StoreError, match=r"verdict.json"
    ):  # that of the last one, which nobody made
        study.run(tmp_path / "runs", -1)
    assert made == ["data.train_per_board=1000"]
