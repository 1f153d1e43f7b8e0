"""`python -m elrea.chat` and its siblings as they were called before `elrea chat`; they go with version 0.3."""

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
"""Old module -> file in this package."""
PACKAGES = {"elrea.features", "elrea.tracking"}
"""Old packages that are gone, and of which a command was a part."""


class OldNames(MetaPathFinder):
    """Finds the commands under their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system calls it."""
        if fullname in COMMANDS:
            return spec_from_file_location(
                fullname, Path(__file__).with_name(f"{COMMANDS[fullname]}.py")
            )
        return ModuleSpec(fullname, None, is_package=True) if fullname in PACKAGES else None
