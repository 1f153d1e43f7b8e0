"""The rooms of the house: who may import whom, and what stays outside the library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room imports from the rooms above its own line (and from itself), never from its own line's
# other rooms or from below. `elrea` is the package itself: its version and its public names.
LEVELS = [
    {"errors"},
    {"files", "fields", "until", "process"},
    {"manifest", "config", "lease", "memory"},
    {"store"},
    {"data"},
    {"backbone"},
    {"adapters"},
    {"features"},
    {"clustering"},
    {"routing"},
    {"ensemble"},
    {"evaluation"},
    {"tracking"},
    {"experiment"},
    {"answers"},
    {"plan"},
    {"prepared"},
    {"chosen"},
    {"scored"},
    {"pipeline"},
    {"assemble", "summarised", "predictions", "forecast"},
    {"results"},
    {"cli"},
    {"sweep_results", "logged", "__main__"},
    {"sweep", "planned", "finished"},
    {"job", "finished_sweeps"},
    {"neighbours", "chat", "dashboard", "combine"},
    {"predict", "harness", "compare"},
    {"merge"},
    {"elrea"},
    {"run"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# What a user runs, mostly on a finished run, stands beside what it is about and calls what lies below.
COMMANDS = {
    ("elrea", "data", "combine"),
    ("elrea", "features", "neighbours"),
    ("elrea", "evaluation", "harness"),
    ("elrea", "evaluation", "compare"),
    ("elrea", "store", "__main__"),
    ("elrea", "tracking", "dashboard"),
}

# What is shown and logged is the job's business; a stage knows nothing of it.
CALLERS = {
    "tracking": {
        "tracking",
        "results",
        "job",
        "planned",
        "predict",
        "sweep",
        "sweep_results",
        "logged",
        "dashboard",
        "compare",
    }
}

# Names from outside that only these rooms may import. Others get plain objects.
KEEPERS = {
    "hydra": {"run", "job", "cli", "sweep"},
    "omegaconf": {"run", "job", "cli", "sweep", "assemble", "config", "combine", "planned"},
    "wandb": {"tracking", "dashboard"},
    "wandb_workspaces": {"tracking", "dashboard"},
    "rich": {"tracking"},
    "matplotlib": {"tracking"},
    # Files of the user's or of the store are never unpickled.
    "pickle": set(),
    "dill": set(),
    "joblib": set(),
    # Not part of the library.
    "tests": set(),
    "experiments": set(),
}

LONGEST = 250  # lines of a module: beyond that it holds more than one noun


def sources(root: Path) -> list[Path]:
    found = sorted((root / "elrea").rglob("*.py"))
    return found + [path for path in [root / "run.py"] if path.exists()]


def room(path: Path, root: Path) -> str:
    """The room that a file belongs to: `elrea/data/exam.py` to data, `elrea/store.py` to store."""
    parts = path.relative_to(root).with_suffix("").parts
    if parts in (("elrea", "__init__"), ("run",)):
        return parts[0]
    if parts in COMMANDS:
        return parts[-1]
    return parts[1]


def imports(path: Path, root: Path) -> Iterator[str]:
    """Every module that a file imports, in full, inside functions and `if TYPE_CHECKING` too."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            # `from elrea import store` imports a room, `from elrea import Ensemble` does not:
            # which of the two it is shows in the last part.
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            constants = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            if called in {"import_module", "__import__"}:
                yield from (name for name in constants if isinstance(name, str))


def imported_room(module: str) -> str | None:
    """The room of this project that a module belongs to; None for modules from elsewhere."""
    parts = module.split(".")
    if parts[0] == "run":
        return "run"
    if parts[0] != "elrea":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else "elrea"


def violations(root: Path) -> list[str]:
    """One line for each import that the rules forbid."""
    lines = []
    for path in sources(root):
        here, name = room(path, root), path.relative_to(root).as_posix()
        if here not in LEVEL:
            lines.append(f"{name}: the room {here} has no place in LEVELS")
            continue
        for module in sorted(set(imports(path, root))):
            there = imported_room(module)
            if module == "elrea.__version__" or there == here:
                continue
            outside = module.partition(".")[0]
            if there is None and here not in KEEPERS.get(outside, {here}):
                lines.append(f"{name}: {outside} is not for {here}")
            if there is not None and LEVEL[there] >= LEVEL[here]:
                lines.append(f"{name}: {here} imports {module}, which stands above it")
            if there in CALLERS and here not in CALLERS[there]:
                lines.append(f"{name}: {here} imports {module}: only the job may")
    return lines


def test_imports_run_one_way() -> None:
    found = {room(path, ROOT) for path in sources(ROOT)}
    # A checker that finds no files finds no violations.
    assert len(sources(ROOT)) >= 40 and {"errors", "store", "data", "adapters"} <= found
    assert not violations(ROOT), "\n".join(violations(ROOT))


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("elrea/data/exam.py", "import elrea.adapters.lora", "data imports elrea.adapters.lora"),
        ("elrea/data/exam.py", "from elrea import pipeline", "data imports elrea.pipeline"),
        ("elrea/data/exam.py", "from elrea import Ensemble", "data imports elrea.Ensemble"),
        ("elrea/data/exam.py", "from ..routing import weights", "data imports elrea.routing"),
        ("elrea/data/exam.py", "def f():\n    from elrea.backbone import card", "elrea.backbone"),
        ("elrea/data/exam.py", "if TYPE_CHECKING:\n    import elrea.pipeline", "elrea.pipeline"),
        ("elrea/data/exam.py", "import_module('elrea.features.adam')", "elrea.features.adam"),
        ("elrea/errors.py", "from elrea.files import sha256", "errors imports elrea.files"),
        ("elrea/manifest.py", "from elrea import config", "manifest imports elrea.config"),
        ("elrea/evaluation/choice.py", "import elrea.tracking.plots", "only the job may"),
        ("elrea/adapters/lora.py", "import run", "adapters imports run"),
        ("elrea/adapters/lora.py", "import wandb.sdk", "wandb is not for adapters"),
        ("elrea/store.py", "from omegaconf import OmegaConf", "omegaconf is not for store"),
        ("elrea/data/exam.py", "import pickle", "pickle is not for data"),
        ("elrea/data/exam.py", "from tests.helpers import x", "tests is not for data"),
        ("elrea/newroom/thing.py", "import os", "newroom has no place"),
    ],
)
def test_the_checker_sees(tmp_path: Path, file: str, line: str, said: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    assert said in "\n".join(violations(tmp_path))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("elrea/adapters/lora.py", "from elrea.data import batches\nimport torch"),
        ("elrea/adapters/lora.py", "from elrea import __version__"),
        ("elrea/data/mmlu.py", "from .examples import Corpus\nfrom elrea.data import rows"),
        ("elrea/job.py", "from elrea.tracking.wandb import Tracker\nimport elrea.store"),
        ("run.py", "import hydra\nfrom elrea import pipeline"),
    ],
)
def test_the_checker_lets_through(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line)
    assert violations(tmp_path) == []


def test_no_module_outgrows_one_noun() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(ROOT)}
    long = [f"{path.relative_to(ROOT)}: {n}" for path, n in lengths.items() if n > LONGEST]
    assert not long, f"more than {LONGEST} lines: {', '.join(long)}"


def test_the_package_is_quick_to_import() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'pytorch_lightning', 'wandb', 'hydra', 'faiss'}"
    script = f"import sys, elrea, elrea.store; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "", f"`import elrea` brings along {done.stderr}"
