"""A new component is one file with one class (or judge function) and one YAML file; no list has to be changed.

`tests/cli/additions` holds a feature, a projection, a clustering, a router, a strategy, a judge and a data source, each
in the place where it belongs. They are laid over a copy of the project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import LIMIT, QUIET, ROOT, TINY

ADDED = Path(__file__).parent / "additions"
CHOICES = [
    "data=larger", "features=token_counts", "clustering=halves", "routing=raw_cosines", "ensemble=nearest",
    "evaluation.strategies=[base,elrea,nearest]", "evaluation.max_new_tokens=4",
]  # fmt: skip
WORDS = [word for word in TINY if not word.startswith(("features.", "clustering."))]

USE = """
import json, sys
from elrea import Ensemble
from elrea.data.readers.rows import RowReader
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.models.device import Device

row = {"instruction": "a", "response": "b", "judge": "first_word"}
ensemble = Ensemble.load(sys.argv[1], backbone=sys.argv[2], device=Device("cpu", threads=1))
prompts = ["Which is larger, 3 or 4?", "WHICH IS LARGER, 3 OR 4?"]
routes = ensemble.route(prompts)
print(json.dumps({
    "features": repr(ensemble.saved.features),
    "router": repr(ensemble.saved.router),
    "judge": RowReader().read(row, "f:1", "f", 1).judge,
    "cosines": [route.cosines for route in routes],
    "weights": [list(route.weights.values()) for route in routes],
    "texts": ensemble.generate(prompts, Decoding(max_new_tokens=3), routes=routes),
}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the additions."""
    copy = tmp_path_factory.mktemp("project")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("elrea", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        for path in (ADDED / name).rglob("*.*"):
            there = copy / path.relative_to(ADDED)
            assert not there.exists(), f"{there} replaces a file of the project"
        shutil.copytree(ADDED / name, copy / name, ignore=ignore, dirs_exist_ok=True)
    shutil.copy(ROOT / "run.py", copy)
    return copy


def python(project: Path, *words: str) -> str:
    """Runs Python with the copied package, in the copy's folder."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_addition_is_one_file_and_at_most_one_yaml() -> None:
    files = [path for path in ADDED.rglob("*") if path.suffix in (".py", ".yaml")]
    assert sum(path.suffix == ".py" for path in files) == 7
    assert sum(path.suffix == ".yaml" for path in files) == 6, "a judge has no settings"


def test_additions_train_export_load_and_generate(project: Path, small_model: Path) -> None:
    words = ["+experiment=elrea_mmlu", *WORDS, *CHOICES, QUIET, f"backbone.name={small_model}"]
    python(project, "run.py", *words)
    summary = json.loads((project / "out" / "summary.json").read_text())
    assert set(summary["strategies"]) == {"base", "elrea", "nearest"}
    stages = set(summary["stages"])
    assert {"features-train", "clusters", "expert-0", "expert-1", "answers-nearest"} <= stages
    rows = (project / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(rows) == 6 and all("nearest" in json.loads(row)["strategies"] for row in rows)

    folder = project / "out" / "ensemble"
    used: dict[str, Any] = json.loads(python(project, "-c", USE, str(folder), str(small_model)))
    assert used["features"].startswith("TokenCounts(projection=Fold(d=24)")
    assert used["router"] == "RawCosines(temperature=1.0, renormalise=True, sharpness=4.0)"
    assert used["judge"] == "first_word"
    for cosines, (base, *experts) in zip(used["cosines"], used["weights"], strict=True):
        assert base == pytest.approx(1 - max(cosines), abs=1e-6)
        ratio = experts[0] / experts[1]
        assert ratio == pytest.approx(2.718281828 ** (4 * (cosines[0] - cosines[1])), rel=1e-4)
    assert [cosines.index(max(cosines)) for cosines in used["cosines"]] in ([0, 1], [1, 0])
    assert len(used["texts"]) == 2
