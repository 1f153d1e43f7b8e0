"""`+experiment=tune`: Optuna keeps its trials in a database, and the same command adds to them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli.commands import EXAM, QUIET, run


def trials(database: Path) -> list[tuple[str, float]]:
    """State and value of every trial."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "select state, value from trials join trial_values using (trial_id) order by trial_id"
        ).fetchall()


def test_trials_are_kept_in_a_database_and_resumed(tiny: list[str], tmp_path: Path) -> None:
    """With SQLAlchemy 2 this ended with an AssertionError: optuna 2.10 needs 1.4 (the extra `sweep`)."""
    words = [
        "+experiment=tune", *tiny, *EXAM, QUIET, "training.max_steps=1", "hydra.sweeper.n_trials=1",
        "hydra.sweeper.storage=sqlite:///trials.db",
    ]  # fmt: skip
    first = run(tmp_path, *words)
    assert first.code == 0, first.err
    assert "1 of 1 jobs are done" in first.out
    before = trials(tmp_path / "trials.db")
    assert [state for state, _ in before] == ["COMPLETE"]

    again = run(tmp_path, *words)
    assert again.code == 0, again.err
    assert trials(tmp_path / "trials.db") == before * 2, "the same sampler seed draws the same"
    assert "Job 0 is done already" in again.out

    other = run(tmp_path, *words, "hydra.sweeper.sampler.seed=1", "hydra.sweep.dir=more")
    assert other.code == 0, other.err
    assert len(trials(tmp_path / "trials.db")) == 3
    assert (tmp_path / "more" / "optimization_results.yaml").is_file()
