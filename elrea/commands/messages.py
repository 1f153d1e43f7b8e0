"""Turns whatever goes wrong on the command line into one line and exit code 1."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elrea.errors import ElreaError, Terminated, did_you_mean

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
MORE = ("optuna", "joblib", "submitit_local", "submitit_slurm")
"""Sweepers and launchers that the extra `sweep` brings."""
TERMINATED = 143
"""After SIGTERM."""


@contextmanager
def told() -> Iterator[None]:
    """Ends the process where a user can mend what went wrong: one line on stderr, exit code 1.

    `debug=true` on the command line lets every traceback through.
    """
    # Else Hydra prints errors in its own way and exits before anybody can shorten them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if any(word.lstrip("+") in ("debug=true", "debug=True") for word in sys.argv[1:]):
        yield
        return
    logging.raiseExceptions = False  # a full disk fails the log's own lines too
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except Terminated:
        _end("terminated; the same command goes on from the last checkpoint", TERMINATED)
    except KeyboardInterrupt:
        _end("stopped; the same command goes on from the last checkpoint", INTERRUPTED)
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        _end(line, 1)


def line_of(error: Exception) -> str | None:
    """What to say of an error that a user can mend; None for a fault of the program."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from elrea.store.files import is_disk_full

    if isinstance(error, ElreaError):
        return str(error)
    if is_disk_full(error):
        return (
            "no space left for the run's folder: free some, and the same command goes on from there"
        )
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _short(error)
    if isinstance(error, ValueError) and "Config group override" in str(error):
        return "a config group wants the name of a choice, as data=exam; not null or a number"
    if isinstance(error, OSError):  # no permission, say: the system's own words name the file
        return f"{error.filename or 'system'}: {error.strerror or error}"
    return None


def _terminate(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is tidying up
    raise Terminated


def _end(line: str, code: int) -> None:
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)


def _short(error: BaseException) -> str:
    """Hydra's message in one line, with the nearest name that exists where one was not found."""
    text = str(error)
    if option := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text):
        group, name = option.groups()
        names = re.findall(r"^\t(\w+)$", text, re.MULTILINE)
        there = f"there is: {', '.join(names) or 'none'}"
        if group in ("hydra/sweeper", "hydra/launcher") and name in MORE:
            return f"{group}={name} is not installed: pip install 'elrea[sweep]'"
        return f"{group}={name}: no such choice{did_you_mean(name, names)} ({there})"
    if key := re.match(r"Could not override '([^']+)'\.?\s+To append", text):
        choices = _keys()
        if key[1] in choices:
            return f"{key[1]}: unknown key here; it belongs to {' or '.join(choices[key[1]])}"
        return f"{key[1]}: unknown key{did_you_mean(key[1], choices)}"
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    return "; ".join(lines[:2]) or type(error).__name__


def _keys() -> dict[str, list[str]]:
    """Every key of the config files, as one types it, and the choices that have it."""
    folder = Path(sys.argv[0]).resolve().parent / "conf"
    found: dict[str, list[str]] = {key: [""] for key in _paths(folder, "/config", "")}
    for path in sorted(folder.glob("*/**/*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        # Their keys are others' or Hydra's.
        if group.startswith(("hydra", "experiment", "scale", "data/")):
            continue
        name = group.replace("/", ".")
        for key in dict.fromkeys([*_paths(folder, f"/{group}/{path.stem}", f"{name}."), name]):
            found.setdefault(key, []).append(f"{group}={path.stem}")
    return found


def _paths(folder: Path, file: str, prefix: str) -> Iterator[str]:
    """The keys of a config file and of the files that it inherits from; those of other groups are listed there."""
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(OmegaConf.load(folder / f"{file[1:]}.yaml"), resolve=False)
    inherited = node.pop("defaults", []) if isinstance(node, dict) else []
    for entry in inherited:
        if isinstance(entry, str) and entry != "_self_":
            name, _, package = entry.partition(
                "@"
            )  # /data_limits@_here_, pretrained, math@sources.math
            below = "" if package in ("", "_here_") else f"{package}."
            parent = name if name.startswith("/") else f"{file.rpartition('/')[0]}/{name}"
            yield from _paths(folder, parent, prefix + below)
    yield from _below(node, prefix)


def _below(node: object, prefix: str) -> Iterator[str]:
    for name, child in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}"
        yield from _below(child, f"{prefix}{name}.")
