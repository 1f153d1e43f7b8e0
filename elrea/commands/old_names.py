"""The old spellings of the commands, as `python -m elrea.chat` for `elrea chat`; version 0.3 removes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

COMMANDS = {
    "elrea.chat": "chat",
    "elrea.predict": "predict",
    "elrea.merge": "merge",
    "elrea.harness": "lm_eval",
    "elrea.features.neighbours": "neighbours",
    "elrea.evaluation.compare": "compare",
    "elrea.tracking.dashboard": "dashboard",
    "elrea.data.combine": "combine",
    "elrea.store.__main__": "store",
}
"""Old module -> module in this package."""
PACKAGES = {"elrea.features", "elrea.tracking"}
"""Old packages that no longer exist and had a command in them."""


class OldNames(MetaPathFinder):
    """Imports a command's module under its old name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of an old name; None for any other. The import system calls this."""
        if fullname in COMMANDS:
            return spec_from_file_location(
                fullname, Path(__file__).with_name(f"{COMMANDS[fullname]}.py")
            )
        return ModuleSpec(fullname, None, is_package=True) if fullname in PACKAGES else None
