"""Turns whatever goes wrong on the command line into one line and exit code 1."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from elrea.errors import ElreaError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def guarded(main: Callable[[], object]) -> None:
    """Runs Hydra's main function; an error that a user can mend is one line on stderr.

    `debug=true` on the command line lets every traceback through.
    """
    if any(word.lstrip("+") in ("debug=true", "debug=True", "debug=1") for word in sys.argv[1:]):
        main()
        return
    # Else Hydra prints errors in its own way and exits before anybody can shorten them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        main()
    except KeyboardInterrupt:
        _end("stopped; the same command goes on from the last checkpoint", INTERRUPTED)
    except ElreaError as error:
        _end(str(error), 1)
    except (HydraException, OmegaConfBaseException) as error:
        _end(_short(error), 1)
    except OSError as error:
        # No space, no permission: the system's own words name the file.
        _end(f"{error.filename or 'system'}: {error.strerror or error}", 1)


def _end(line: str, code: int) -> None:
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)


def _short(error: BaseException) -> str:
    """Hydra's message in one line, with the nearest name that exists where one was not found."""
    text = str(error)
    if option := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text):
        group, name = option.groups()
        folder = Path(sys.argv[0]).resolve().parent / "conf" / group
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        return f"{group}={name}: no such choice{_nearest(name, names)} (there is: {', '.join(names) or 'none'})"
    if key := re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text):
        return f"{key[2]}: unknown key{_nearest(key[1], _keys())}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ". ".join(lines[:2]) or type(error).__name__


def _keys() -> list[str]:
    """Every key that the config files name."""
    folder = Path(sys.argv[0]).resolve().parent / "conf"
    found = re.findall(
        r"^\s*(\w+):",
        "\n".join(p.read_text(encoding="utf-8") for p in folder.rglob("*.yaml")),
        re.MULTILINE,
    )
    return sorted(set(found) | {p.name for p in folder.iterdir() if p.is_dir()})


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
