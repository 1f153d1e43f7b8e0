"""The old spellings of the commands, as `python -m elrea.chat` for `elrea chat`; version 0.3 removes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

COMMANDS = {
    "elrea.backbone.train": "models/tiny/train",
    "elrea.chat": "commands/chat",
    "elrea.predict": "commands/predict",
    "elrea.merge": "commands/merge",
    "elrea.harness": "commands/harness",
    "elrea.features.neighbours": "commands/neighbours",
    "elrea.evaluation.compare": "commands/compare",
    "elrea.tracking.dashboard": "commands/dashboard",
    "elrea.data.combine": "commands/combine",
    "elrea.store.__main__": "commands/store",
}
"""Old module -> file in the package `elrea`, without .py."""
PACKAGES = {"elrea.backbone", "elrea.features", "elrea.tracking"}
"""Old packages that no longer exist and had a command in them."""


class OldNames(MetaPathFinder):
    """Imports a command's module under its old name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of an old name; None for any other. The import system calls this."""
        if fullname in COMMANDS:
            return spec_from_file_location(
                fullname, Path(__file__).parents[1] / f"{COMMANDS[fullname]}.py"
            )
        return ModuleSpec(fullname, None, is_package=True) if fullname in PACKAGES else None
