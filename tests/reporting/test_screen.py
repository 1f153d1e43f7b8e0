"""Tables on the terminal: figures, width, and readability without colour."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from elrea.reporting.terminal import plan_table, results_table

STRATEGIES = {
    "backbone": {"accuracy": 0.2512, "ci95": [0.232, 0.271]},
    "base": {"accuracy": 0.64, "ci95": [0.6187, 0.6607], "forward_passes": 1},
    "elrea": {
        "accuracy": 0.702,
        "ci95": [0.681, 0.722],
        "delta_to_base": 0.062,
        "delta_ci95": [0.0412, 0.083],
        "forward_passes": 9,
    },
    "uniform": {
        "accuracy": 0.6396,
        "ci95": [0.618, 0.66],
        "delta_to_base": -0.0004,
        "delta_ci95": [-0.02, 0.0191],
        "forward_passes": 2.5,
    },
    "random_cluster_with_an_exceedingly_long_name_of_its_own": {"accuracy": 1.0, "ci95": [0.9, 1]},
}


def shown(table: RenderableType, width: int = 100, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=width, **options)  # type: ignore[arg-type]
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_results_table_has_the_figures() -> None:
    text = shown(results_table(STRATEGIES, "Results", "built-in exam, not MMLU"))
    rows = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.split()}
    assert rows["elrea"] == "elrea 70.2 [68.1, 72.2] +6.2 [+4.1, +8.3] 9"
    assert rows["base"] == "base 64.0 [61.9, 66.1] - - 1"
    assert rows["backbone"] == "backbone 25.1 [23.2, 27.1] - - -"
    assert rows["uniform"] == "uniform 64.0 [61.8, 66.0] +0.0 [-2.0, +1.9] 2.5", "no minus zero"
    assert text.splitlines()[0].startswith("Results")
    assert "built-in exam, not MMLU" in text


def by_task(count: int) -> dict[str, Any]:
    """The strategies' rows with `count` tasks."""
    tasks = {f"task {n}": {"accuracy": 0.5, "n": 3, "ci95": [0.1, 0.9]} for n in range(count)}
    return {name: {**row, "macro": 0.123, "tasks": tasks} for name, row in STRATEGIES.items()}


def normed(strategies: dict[str, Any]) -> dict[str, Any]:
    """The strategies' rows with the accuracy by likelihood per character."""
    return {name: {**row, "acc_norm": 0.456} for name, row in strategies.items()}


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("strategies", [STRATEGIES, by_task(2), normed(by_task(2))])
def test_the_results_table_fits(strategies: dict[str, Any], width: int) -> None:
    lines = shown(results_table(strategies), width).splitlines()
    assert max(map(len, lines)) <= width


def test_choices_of_different_lengths_add_a_column() -> None:
    named = {"elrea": normed(STRATEGIES)["elrea"], "sc": STRATEGIES["elrea"]}
    for loss in (False, True):
        lines = shown(results_table(named, loss=loss)).splitlines()
        assert "acc_norm %" in lines[0]
        cells = [" ".join(line.split()) for line in lines[2:4]]
        assert cells[0].startswith("elrea 70.2 [68.1, 72.2] 45.6 +6.2 [+4.1, +8.3]")
        assert cells[1].startswith("sc 70.2 [68.1, 72.2] - +6.2"), "a vote has none"
    assert "acc_norm" not in shown(results_table(STRATEGIES))


def test_several_tasks_add_a_macro_column() -> None:
    named = {"instruction_embedding": by_task(2)["elrea"]}
    line = shown(results_table(named)).splitlines()[2]
    assert (
        " ".join(line.split()) == "instruction_embedding 70.2 [68.1, 72.2] 12.3 +6.2 [+4.1, +8.3] 9"
    )
    assert "macro" in shown(results_table(named)) and "macro" not in shown(
        results_table(by_task(1))
    )


def test_a_row_is_shown_by_its_label() -> None:
    named = {"instruction_embedding": {**STRATEGIES["elrea"], "label": "mean hidden state"}}
    text = shown(results_table(named))
    assert "mean hidden state" in text and "instruction_embedding" not in text


def test_a_significant_difference_is_coloured_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = shown(results_table(STRATEGIES), force_terminal=True)
    line = next(line for line in coloured.splitlines() if line.lstrip().startswith("elrea"))
    assert "\x1b[32m" in line
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown(results_table(STRATEGIES), force_terminal=True)
    assert "\x1b[3" not in plain


def test_the_plan_shows_stages_in_order_with_complete_keys() -> None:
    rows = [
        ("base", "0123456789abcdef", "reused"),
        ("features", "fedcba9876543210", "to do"),
        ("expert [3]", "00112233aabbccdd", "resumes"),
    ]
    text = shown(plan_table(rows), 60)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    assert lines[-3:] == [" ".join(row) for row in rows]
