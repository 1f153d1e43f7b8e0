"""A run folder of an older version still works with every command, under the commands' old names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from elrea.config import leaves, load_config
from elrea.reporting.settings import ADDED, ADDED_TO_DATA, MAY_DIFFER, UNKNOWN
from elrea.reporting.sweeps import is_below
from tests.cli.commands import run, run_module

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "old_run"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with a copy of the old version's run and store."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    return tmp_path


def output(place: Path, *words: str, given: str = "") -> str:
    """Output of `python -m <words>` in that folder; it must exit with 0 and print nothing on stderr."""
    done = run_module(place, *words, given=given)
    assert (done.code, done.err) == (0, ""), done
    return done.out


def test_predict(place: Path) -> None:
    files = ("--in", "prompts.jsonl", "--out", "new.jsonl")
    output(place, "elrea.predict", "run", *files, "--max-new-tokens", "8")
    old, new = (
        [json.loads(line) for line in (place / name).read_text().splitlines()]
        for name in ("answers.jsonl", "new.jsonl")
    )
    for before, now in zip(old, new, strict=True):
        assert now["answer"] == before["answer"] and now["nearest"] == before["nearest"]
        assert now["weights"] == pytest.approx(before["weights"], abs=1e-4)
    assert new[0]["log_likelihoods"] == pytest.approx(old[0]["log_likelihoods"], abs=1e-3)


def test_chat(place: Path) -> None:
    out = output(place, "elrea.chat", "run", "--max-new-tokens", "8", given="What is 2 + 2?\n")
    assert out == "[expert-1 0.88, base 0.49, expert-0 0.12]\n\nA: 12 | B: 10\n\n"


def test_neighbours(place: Path) -> None:
    out = output(place, "elrea.features.neighbours", "run", "What is 2 + 2?", "-k", "3")
    cosines = [line.split()[0] for line in out.splitlines()[1:]]
    ids = [line.rpartition("(")[2].rstrip(")") for line in out.splitlines()[1:]]
    assert [float(cosine) for cosine in cosines] == pytest.approx([0.589, 0.580, 0.558], abs=2e-3)
    assert ids == [f"exam/train/Birch/{number}" for number in ("00006", "00012", "00014")]


def test_merge(place: Path) -> None:
    out = output(
        place, "elrea.merge", "run", "--out", "merged", "--weights", "base=0.2,expert-0=0.5"
    )
    assert "0.2857" in out and "0.7143" in out and "rank 2, exact" in out
    merged = load_file(place / "merged" / "adapter_model.safetensors")
    (rank,) = {t.shape[0] for name, t in merged.items() if "lora_A" in name}
    assert rank == 2


def test_compare(place: Path) -> None:
    out = output(place, "elrea.evaluation.compare", "run", "--a", "elrea", "--b", "base", "--json")
    pooled = json.loads(out)["pooled"]
    assert pooled["difference"] == pytest.approx(-1 / 3, abs=1e-6)
    assert pooled["ci95"] == pytest.approx([-0.583333, -0.083333]) and pooled["p"] == 0.125


def test_store(place: Path) -> None:
    out = output(place, "elrea.store", "verify", "--store", "store")
    assert out == "4 stages, 0 damaged\n"


def test_the_python_api(place: Path) -> None:
    from elrea import Ensemble

    ensemble = Ensemble.load(place / "run" / "ensemble")
    (route,) = ensemble.route(["What is the capital of France?"])
    assert route.nearest == 0 and route.weights["base"] == pytest.approx(0.649121, abs=1e-4)


def words_of(place: Path) -> list[str]:
    """The words of the old run's experiment, without Hydra's."""
    command = json.loads((place / "run" / "status.json").read_text())["command"]
    return [word for word in command if not word.startswith("hydra.")]


def test_the_same_run_made_today_can_be_compared_with_it(place: Path) -> None:
    """Its config names classes by the modules that they had."""
    ended = run(place, *words_of(place), "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    out = output(place, "elrea.evaluation.compare", "run", "new", "--a", "elrea", "--b", "base")
    assert "-33.3" in out
    old, new = ((place / name / "predictions.jsonl").read_text() for name in ("run", "new"))
    assert json.loads(new.splitlines()[0])["id"] == json.loads(old.splitlines()[0])["id"]


def test_a_sweep_that_it_finished_is_not_made_again(place: Path) -> None:
    words = words_of(place)
    (place / "sweep").mkdir()
    shutil.copytree(place / "run", place / "sweep" / "0")
    (place / "sweep" / "sweep.json").write_text(json.dumps({"overrides": words}))
    shutil.rmtree(place / "store")
    ended = run(place, "-m", *words, "hydra.sweep.dir=sweep")
    assert (ended.code, ended.err) == (0, "")
    assert "Job 0 is done already" in ended.out and "1 of 1 jobs are done" in ended.out
    changed = run(place, "-m", *words, "hydra.sweep.dir=sweep2", "plan=true", "adapter.r=2")
    assert "to do" in changed.out


def test_the_backbone_can_still_be_trained_under_the_old_name(place: Path) -> None:
    assert "--folder" in output(place, "elrea.backbone.train", "--help")


def test_settings_that_an_old_run_lacks_have_a_value_for_it() -> None:
    """So that `elrea compare` takes an old run and a new one of the defaults as runs of one setting."""
    old = leaves(load_config(OLD / "run" / "config.yaml"))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        new = leaves(compose("config"))
    lacking = {key for key in new.keys() - old.keys() if not is_below(key, MAY_DIFFER)}
    data = {key for key in lacking if key.rpartition(".")[2] in ADDED_TO_DATA}
    assert "evaluation.rate" in lacking and lacking - data <= {*ADDED, *UNKNOWN}
    assert all(new[key] == ADDED[key] for key in lacking & ADDED.keys())
