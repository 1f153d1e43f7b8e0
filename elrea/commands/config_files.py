"""The config files: their folder in the clone or in the installed package, what others may add, and all keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from elrea.errors import ConfigError


def config_folder() -> Path:
    """`conf/` in the package, where a wheel has it, or beside it, as in a clone, or else in the working folder.

    Raises:
        ConfigError: None is there: a part of the package was copied.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package, package.parent, Path.cwd()):
        if (place / "conf" / "config.yaml").is_file():
            return place / "conf"
    raise ConfigError(
        "no conf/config.yaml beside the package or in this folder: run the command in a clone of the repository"
    )


def in_clone() -> bool:
    """Whether the package lies in a clone, which has the Makefile, rather than among installed ones."""
    return (Path(__file__).resolve().parents[2] / "Makefile").is_file()


def install(extra: str = "") -> str:
    """The command that installs what is missing: of the clone, or of the package."""
    if not in_clone():
        return f"pip install 'elrea[{extra}]'" if extra else "pip install elrea"
    if extra:
        return f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"
    return "make setup, and then . .venv/bin/activate"


def check_added(conf: Path, folders: Iterable[Path]) -> None:
    """Refuses a file of an added folder with the name of one of ours, which Hydra would take instead of it.

    Args:
        conf: Our folder.
        folders: Of --config-dir and hydra.searchpath.

    Raises:
        ConfigError: There is such a file.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            inner = path.relative_to(folder)
            if (conf / inner).is_file() and not (conf / inner).samefile(path):
                group = inner.parent.as_posix()
                choice = inner.stem if group == "." else f"{group}={inner.stem}"
                raise ConfigError(
                    f"{path}: {choice} is elrea's own already; give the file another name"
                )


def known_keys() -> dict[str, list[str]]:
    """Every key of the config files as a user types it, and the choices that have it."""
    folder = config_folder()
    found: dict[str, list[str]] = {key: [""] for key in _keys(folder, "/config", "")}
    for path in sorted(folder.glob("*/**/*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        # These files have keys of other groups, or of Hydra.
        if group.startswith(("hydra", "experiment", "scale", "data/")):
            continue
        name = group.replace("/", ".")
        for key in dict.fromkeys([*_keys(folder, f"/{group}/{path.stem}", f"{name}."), name]):
            found.setdefault(key, []).append(f"{group}={path.stem}")
    return found


def _keys(folder: Path, file: str, prefix: str) -> Iterator[str]:
    """The keys of a config file and of the files that it inherits from; those of other groups are not among them."""
    node = _read(folder / f"{file[1:]}.yaml")
    for entry in node.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            # /data_limits@_here_, pretrained, math@sources.math
            name, _, package = entry.partition("@")
            below = "" if package in ("", "_here_") else f"{package}."
            parent = name if name.startswith("/") else f"{file.rpartition('/')[0]}/{name}"
            yield from _keys(folder, parent, prefix + below)
    yield from _nested({name: node[name] for name in node if name != "defaults"}, prefix)


@cache
def _read(path: Path) -> dict[str, Any]:
    """A config file. libyaml reads all of them in 20 ms, OmegaConf in half a second, and a refusal waits for them."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    return found if isinstance(found, dict) else {}


def _nested(node: object, prefix: str) -> Iterator[str]:
    for name, child in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}"
        yield from _nested(child, f"{prefix}{name}.")
