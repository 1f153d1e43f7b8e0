"""The rooms of the house: imports run one way, without exemption and without a circle."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module imports from its own room and from the rooms before it.
ROOMS = [
    "elrea.errors", "elrea.version", "elrea.store", "elrea.plugins", "elrea.config", "elrea.data", "elrea.models",
    "elrea.method.features", "elrea.method.clustering", "elrea.method.routing", "elrea.method.ensemble",
    "elrea.evaluation", "elrea.pipeline", "elrea.reporting", "elrea.commands", "elrea.__main__", "elrea", "run",
]  # fmt: skip

# Libraries that only these rooms may import: the others get plain objects.
KEEPERS = {
    "hydra": {"elrea.pipeline", "elrea.commands", "run"},
    "omegaconf": {"elrea.config", "elrea.pipeline", "elrea.reporting", "elrea.commands", "run"},
    "wandb": {"elrea.reporting", "elrea.commands"},
    "wandb_workspaces": {"elrea.reporting", "elrea.commands"},
    "rich": {"elrea.reporting"},
    "matplotlib": {"elrea.reporting"},
    # Files of the user's or of the store are never unpickled.
    "pickle": set(),
    "dill": set(),
    "joblib": set(),
    # Not part of the library.
    "tests": set(),
    "experiments": set(),
}

LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 60  # lines, docstring included
LOOSE = {"__init__", "__main__", "config", "errors", "plugins", "version"}  # modules outside a room


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project by its full name."""
    paths = [*sorted((root / "elrea").rglob("*.py")), *root.glob("run.py")]
    return {_name(path, root): path for path in paths}


def _name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(module: str, path: Path, known: set[str]) -> Iterator[str]:
    """Every module that a file imports, inside functions and `if TYPE_CHECKING` too."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*base, *(node.module.split(".") if node.module else [])])
            names = [f"{home}.{alias.name}" for alias in node.names]
            yield from (name if name in known else home for name in names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            constants = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            if called in {"import_module", "__import__"}:
                yield from (name for name in constants if isinstance(name, str))


def room(module: str) -> str | None:
    """The room of a module of this project; None for modules from elsewhere, and for one without a room."""
    fits = [r for r in ROOMS if module == r or (module.startswith(f"{r}.") and r != "elrea")]
    return max(fits, key=len, default=None)


def violations(root: Path) -> list[str]:
    """One line for each import that the rules forbid."""
    lines = []
    files = modules(root)
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        here, name = room(module), path.relative_to(root).as_posix()
        if here is None:
            if path.name != "__init__.py":
                lines.append(f"{name} is in no room")
            continue
        for other in sorted(set(imports(module, path, set(files)))):
            outside, there = other.partition(".")[0], room(other)
            if outside not in ("elrea", "run"):
                if here not in KEEPERS.get(outside, {here}):
                    lines.append(f"{name}: {outside} is not for {here}")
                continue
            if there is None or ROOMS.index(there) > ROOMS.index(here):
                lines.append(f"{name}: {here} imports {other}, which comes after it")
            graph.setdefault(module, set()).add(other)
    return [*lines, *_circles(graph)]


def circles_of_studies(root: Path) -> list[str]:
    """Circles of imports between the scripts of experiments/, those inside functions too."""
    files = {_name(path, root): path for path in sorted((root / "experiments").rglob("*.py"))}
    return _circles(
        {name: set(imports(name, path, set(files))) & {*files} for name, path in files.items()}
    )


def _circles(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [f"circle: {' <- '.join(error.args[1])}"]
    return []


def test_imports_run_one_way() -> None:
    # A checker that finds no files finds no violations.
    assert len(modules(ROOT)) >= 150
    assert not violations(ROOT), "\n".join(violations(ROOT))


def test_no_study_imports_in_a_circle(tmp_path: Path) -> None:
    assert not circles_of_studies(ROOT)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "a.py").write_text("import experiments.b")
    (tmp_path / "experiments" / "b.py").write_text("def f():\n    from experiments import a")
    assert "circle" in "\n".join(circles_of_studies(tmp_path))


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("elrea/data/mix.py", "import elrea.models.lora", "elrea.data imports elrea.models.lora"),
        ("elrea/data/mix.py", "from elrea import pipeline", "elrea.data imports elrea"),
        ("elrea/data/mix.py", "from elrea import Ensemble", "elrea.data imports elrea,"),
        ("elrea/data/mix.py", "from ..method.routing import weights", "imports elrea.method.routing"),
        ("elrea/data/mix.py", "def f():\n    from elrea.models import lora", "imports elrea.models"),
        ("elrea/data/mix.py", "if TYPE_CHECKING:\n    import elrea.pipeline.run", "elrea.pipeline"),
        ("elrea/data/mix.py", "import_module('elrea.models.lora')", "imports elrea.models.lora"),
        ("elrea/errors.py", "from elrea.store.files import sha256", "elrea.errors imports"),
        ("elrea/method/routing/x.py", "import elrea.method.ensemble.joint", "comes after it"),
        ("elrea/models/lora.py", "import run", "elrea.models imports run"),
        ("elrea/models/lora.py", "import wandb.sdk", "wandb is not for elrea.models"),
        ("elrea/store/lock.py", "from omegaconf import OmegaConf", "omegaconf is not for elrea.store"),
        ("elrea/data/mix.py", "import pickle", "pickle is not for elrea.data"),
        ("elrea/data/mix.py", "from tests.helpers import x", "tests is not for elrea.data"),
        ("elrea/newroom/thing.py", "import os", "elrea/newroom/thing.py is in no room"),
        ("elrea/thing.py", "import os", "elrea/thing.py is in no room"),
        ("elrea/data/a.py", "from elrea.data import a\nimport elrea.data.a", "circle"),
    ],
)  # fmt: skip
def test_the_checker_sees(tmp_path: Path, file: str, line: str, said: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    assert said in "\n".join(violations(tmp_path))


def test_the_checker_sees_a_circle_of_two(tmp_path: Path) -> None:
    (tmp_path / "elrea" / "data").mkdir(parents=True)
    (tmp_path / "elrea" / "data" / "a.py").write_text("import elrea.data.b")
    (tmp_path / "elrea" / "data" / "b.py").write_text("def f():\n    import elrea.data.a")
    assert "circle" in "\n".join(violations(tmp_path))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("elrea/models/lora.py", "from elrea.data import batches\nimport torch"),
        ("elrea/models/lora.py", "from elrea.version import __version__"),
        ("elrea/data/mmlu.py", "from .examples import Example\nfrom elrea.data import rows"),
        ("elrea/commands/jobs/job.py", "from elrea.reporting.wandb import tracker\nimport hydra"),
        ("run.py", "import hydra\nfrom elrea.pipeline import run"),
    ],
)
def test_the_checker_lets_through(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line)
    assert violations(tmp_path) == []


def test_files_and_functions_are_short() -> None:
    long = []
    for name, path in modules(ROOT).items():
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > LONGEST_FILE:
            long.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name}.{node.name}: {lines} lines")
    assert not long, "\n".join(long)


def test_every_room_says_what_it_is_for() -> None:
    for path in (ROOT / "elrea").rglob("*"):
        if path.is_dir() and any(path.glob("*.py")):
            text = (path / "__init__.py").read_text(encoding="utf-8")
            assert (ast.get_docstring(ast.parse(text)) or "").endswith("."), path


def test_few_modules_are_outside_a_room() -> None:
    assert {path.stem for path in (ROOT / "elrea").glob("*.py")} <= LOOSE


def test_the_package_is_quick_to_import() -> None:
    heavy = (
        "{'torch', 'transformers', 'peft', 'pytorch_lightning', 'wandb', 'hydra', 'faiss', 'numpy'}"
    )
    script = (
        f"import sys, elrea, elrea.store.stage; sys.exit(str({heavy} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "", f"`import elrea` brings along {done.stderr}"
