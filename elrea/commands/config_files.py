"""Finds the folder `conf/` of the clone, and the keys of the config files in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from elrea.errors import ConfigError


def config_folder() -> Path:
    """`conf/` beside the package, or else in the working folder.

    Raises:
        ConfigError: Neither is there: the package was installed without its clone.
    """
    for place in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (place / "conf" / "config.yaml").is_file():
            return place / "conf"
    raise ConfigError(
        "no conf/config.yaml beside the package or in this folder: run the command in a clone of the repository"
    )


def known_keys() -> dict[str, list[str]]:
    """Every key of the config files as a user types it, and the choices that have it."""
    from omegaconf import OmegaConf

    folder = config_folder()
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("**/*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        # These files have keys of other groups, or of Hydra.
        if group.startswith(("hydra", "experiment", "scale", "data/")):
            continue
        choice = f"{group}={path.stem}" if group != "." else ""
        prefix = group.replace("/", ".") + "." if choice else ""
        for key in _paths(OmegaConf.to_container(OmegaConf.load(path)), prefix):
            found.setdefault(key, []).append(choice)
        if choice:
            found.setdefault(prefix[:-1], []).append(choice)
    return found


def _paths(node: object, prefix: str) -> Iterator[str]:
    for name, child in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}"
        yield from _paths(child, f"{prefix}{name}.")
