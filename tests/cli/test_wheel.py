"""The built wheel alone, in a folder that is not the clone: the command, its config files, a run and its outputs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from elrea.commands.cli import COMMANDS
from tests.cli.commands import EXAM, LIMIT, QUIET, ROOT, TINY

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "elrea", "conf")
NO_BACKEND = "a wheel is built by setuptools >= 77, which is not installed here"


def _has_backend() -> bool:
    from importlib.metadata import version

    return bool(find_spec("setuptools")) and int(version("setuptools").partition(".")[0]) >= 77


pytestmark = pytest.mark.skipif(not _has_backend(), reason=NO_BACKEND)


def done(*words: str, cwd: Path, path: Path | None = None, **more: str) -> str:
    """Runs a command that succeeds; `path` is its PYTHONPATH, and `more` goes into its environment."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        env["PYTHONPATH"] = str(path)
    env.update(more)
    ended = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as setuptools writes to the folder that it builds from."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy)
    (copy / "build" / "lib" / "elrea" / "conf").mkdir(parents=True)
    (copy / "build" / "lib" / "elrea" / "conf" / "removed_since.yaml").touch()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(copy / "made")]
    done(*pip, "wheel", str(copy), *offline, cwd=copy)
    (made,) = (copy / "made").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has unpacked it."""
    place = tmp_path_factory.mktemp("installed")
    words = "-m pip --quiet --disable-pip-version-check install --no-compile --no-deps --no-index --target".split()
    done(sys.executable, *words, str(place), str(wheel), cwd=place)
    return place


def test_it_has_every_config_file_and_nothing_of_the_clone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for path in (ROOT / "conf").rglob("*.yaml"):
            inside = f"elrea/conf/{path.relative_to(ROOT / 'conf').as_posix()}"
            assert archive.read(inside) == path.read_bytes()
        points = archive.read(next(name for name in names if name.endswith("/entry_points.txt")))
        assert b"elrea = elrea.commands.lm_eval_model:ElreaLM" in points
        assert b"\nclass ElreaLM(" in archive.read("elrea/commands/lm_eval_model.py")
    ours = [name for name in names if name.startswith("elrea/conf/")]
    assert len(ours) == len(list((ROOT / "conf").rglob("*.yaml")))
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"elrea"}
    for wanted in ("elrea/py.typed", "elrea/models/tiny/weights/", "elrea/reporting/templates/"):
        assert any(name.startswith(wanted) for name in names), wanted


def test_an_installed_elrea_runs_in_any_folder(
    installed: Path, tmp_path: Path, small_model: Path
) -> None:
    """The command as pip makes it, and a sweep of the main job with a strategy from a config folder."""
    elrea = (sys.executable, str(installed / "bin" / "elrea"))
    listed = done(*elrea, "--help", cwd=tmp_path, path=installed)
    assert all(f"\n  {command} " in listed for command in COMMANDS)
    where = (
        "import elrea, elrea.commands.config_files as c; print(elrea.__file__, c.config_folder())"
    )
    found = done(sys.executable, "-c", where, cwd=tmp_path, path=installed).split()
    assert found == [str(installed / "elrea" / name) for name in ("__init__.py", "conf")]

    (tmp_path / "mine" / "ensemble").mkdir(parents=True)
    (tmp_path / "mine" / "ensemble" / "elrea_top2.yaml").write_text("defaults: [elrea]\ntop_k: 2\n")
    words = ["+experiment=elrea_mmlu", *TINY, *EXAM, QUIET, f"backbone.name={small_model}"]
    words += ["--config-dir", "mine", "ensemble=elrea_top2", "evaluation.strategies=[elrea]"]
    words += ["-m", "seed=1", "hydra.sweep.dir=out"]
    said = done(*elrea, "run", *words, cwd=tmp_path, path=installed)
    assert "1 of 1 jobs are done" in said and "Everything is in out" in said
    summary = json.loads((tmp_path / "out" / "0" / "summary.json").read_text())
    assert set(summary["strategies"]) == {"base", "elrea", "elrea_top2"}
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out", ".elrea"}
    assert str(ROOT) not in (tmp_path / "out" / "0" / ".hydra" / "hydra.yaml").read_text()


def test_help_of_the_installed_run_names_its_command(installed: Path, tmp_path: Path) -> None:
    elrea = (sys.executable, str(installed / "bin" / "elrea"))
    said = done(*elrea, "run", "--help", cwd=tmp_path, path=installed)
    assert "elrea run -m +experiment=elrea_mmlu" in said and "run.py" not in said
    assert "elrea_top3" in said


def test_the_shell_completes_the_installed_command(installed: Path, tmp_path: Path) -> None:
    """As Hydra's script in bash calls it."""
    elrea = (sys.executable, str(installed / "bin" / "elrea"), "-sc")
    script = done(*elrea, "install=bash", cwd=tmp_path, path=installed)
    assert script.rstrip().endswith("-F hydra_bash_completion elrea")
    for line, wanted in (
        ("elrea run clustering=", "clustering=birch"),
        ("elrea run +experiment=elrea_mm", "+experiment=elrea_mmlu"),
        ("elrea st", "store"),
    ):
        found = done(*elrea, "query=bash", cwd=tmp_path, path=installed, COMP_LINE=line).split()
        assert wanted in found, line
    assert not done(
        *elrea, "query=bash", cwd=tmp_path, path=installed, COMP_LINE="elrea chat r"
    ).split()
