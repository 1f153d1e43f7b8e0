"""Two strategies over runs of several seeds, by the command that a user types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elrea.cli import told
from elrea.evaluation import compare
from elrea.evaluation.statistics import mcnemar, paired_interval

N = 40
DRAW = np.random.default_rng(0)
BASE = {seed: DRAW.random(N) < 0.5 for seed in (0, 1, 2)}
BETTER = {seed: right | (DRAW.random(N) < 0.3) for seed, right in BASE.items()}


def write_run(
    folder: Path, seed: int, strategies: dict[str, Any], answer: str = "A", turned: bool = False
) -> Path:
    """What a finished run leaves of its answers."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"seed": seed}))
    rows = [
        {
            "id": f"item/{i}",
            "answer": answer,
            "strategies": {name: {"correct": bool(c[i])} for name, c in strategies.items()},
        }
        for i in range(N)
    ]
    lines = [json.dumps(row) for row in (rows[::-1] if turned else rows)]
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_seeds(root: Path) -> Path:
    """A sweep over seeds; the second job has its items in another order."""
    for seed in BASE:
        both = {"base": BASE[seed], "elrea": BETTER[seed]}
        write_run(root / "sweep" / str(seed), seed, both, turned=seed == 1)
    return root / "sweep"


def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """What the command says: its output, or the line of its error."""
    monkeypatch.setattr("sys.argv", ["compare", *map(str, words)])
    try:
        with told():
            compare.main()
    except SystemExit as end:
        assert end.code == 1
        return capsys.readouterr().err.removeprefix("error: ")
    return capsys.readouterr().out


def test_seeds_one_by_one_and_together(tmp_path: Path, monkeypatch, capsys) -> None:
    words = [write_seeds(tmp_path), "--a", "elrea", "--b", "base", "--resamples", 500]
    found = json.loads(ended(monkeypatch, capsys, *words, "--json"))
    assert (found["a"], found["b"], found["items"]) == ("elrea", "base", N)
    for row, seed in zip(found["seeds"], BASE, strict=True):
        test = mcnemar(BETTER[seed], BASE[seed])
        assert (row["seed"], row["only_a"], row["only_b"]) == (seed, test.only_a, test.only_b)
        assert row["p"] == pytest.approx(test.p) and test.only_b == 0
        assert (row["a"], row["b"]) == (BETTER[seed].mean(), BASE[seed].mean())
    left, right = (np.array(list(each.values())) for each in (BETTER, BASE))
    pooled = found["pooled"]
    assert pooled["ci95"] == pytest.approx(paired_interval(left, right, 0, 500), abs=1e-6)
    assert pooled["difference"] == pytest.approx(left.mean() - right.mean(), abs=1e-6)
    ahead = left.sum(0) - right.sum(0)
    assert (pooled["only_a"], pooled["only_b"]) == ((ahead > 0).sum(), (ahead < 0).sum())
    table = ended(monkeypatch, capsys, *words)
    assert max(map(len, table.splitlines())) <= 100
    assert [line.split()[0] for line in table.splitlines()[3:7]] == ["0", "1", "2", "all"]


def test_the_same_answers_with_three_seeds_are_no_more_evidence_than_with_one(
    tmp_path: Path,
) -> None:
    """Discordant pairs that were added up would make a small p of nothing but repetition."""
    both = {"base": BASE[0], "elrea": BETTER[0]}
    runs = [compare.read_run(write_run(tmp_path / str(seed), seed, both)) for seed in (3, 4, 5)]
    one, three = (compare.compare(some, "elrea", "base", 200) for some in (runs[:1], runs))
    assert three["pooled"] == one["pooled"]
    assert {**one["seeds"][0], "seed": None} == {**one["pooled"], "seed": None}
    turned = compare.compare(runs, "base", "elrea", 200)["pooled"]
    assert turned["difference"] == -three["pooled"]["difference"]
    assert (turned["only_a"], turned["p"]) == (0, three["pooled"]["p"])


def test_strategies_of_several_runs_with_one_seed(tmp_path: Path) -> None:
    """Jobs of a sweep over `ensemble=` score others too, the same way."""
    one = write_run(tmp_path / "one", 0, {"base": BASE[0], "elrea": BETTER[0]})
    two = write_run(tmp_path / "two", 0, {"base": BASE[0], "uniform": BASE[1]})
    runs = [compare.read_run(folder) for folder in (one, two)]
    found = compare.compare(runs, "elrea", "uniform", 100)
    assert len(found["seeds"]) == 1 and found["pooled"]["b"] == BASE[1].mean()


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    def line(*words: Any) -> str:
        said = ended(monkeypatch, capsys, *words, "--a", "elrea", "--b", "base").strip()
        assert "\n" not in said
        return said

    sweep = write_seeds(tmp_path)
    other = write_run(tmp_path / "other", 3, {"base": BASE[0], "elrea": BASE[1]}, answer="B")
    again = write_run(tmp_path / "again", 1, {"base": BASE[1], "elrea": BASE[1]})
    without = write_run(tmp_path / "without", 4, {"base": BASE[0], "elrae": BASE[1]})
    (tmp_path / "empty").mkdir()
    assert "no predictions.jsonl there" in line(tmp_path / "empty")
    assert "have other test items (40 and 40)" in line(sweep, other)
    assert "have seed 1 and score elrea differently" in line(sweep, again)
    assert "no strategy 'elrea' with seed 4; did you mean elrae? (there is: base, elrae)" in line(
        sweep, without
    )
    (without / "predictions.jsonl").write_text('{"id": "a"}\n')
    assert "predictions.jsonl: not as a run writes it (KeyError('strategies'))" in line(without)
    (without / "predictions.jsonl").write_text("no JSON\n")
    assert "not as a run writes it" in line(without)
    (without / "summary.json").unlink()
    assert "no summary.json there; the run is not finished" in line(without)
    assert "--resamples 0: must be at least 1" in line(sweep, "--resamples", 0)
