"""The packages of a whole run, for the parts that make one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

MODULES = {
    "faiss-cpu": "faiss",
    "hydra-core": "hydra",
    "pytorch-lightning": "lightning_fabric",
    "scikit-learn": "sklearn",
}
"""Packages whose module has another name."""


def modules() -> tuple[str, ...]:
    """The modules of all packages that pyproject.toml names as dependencies."""
    file = Path(__file__).parents[2] / "pyproject.toml"
    wanted = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in wanted]
    return tuple(MODULES.get(name, name.replace("-", "_")) for name in names)
