"""What may leave this machine: no keys, no folders that tell whose machine it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HIDDEN = "(hidden)"

# Whole words only: `max_tokens`, `pad_token` and `tokenizer` are settings, not secrets.
_SECRET_KEY = re.compile(
    r"(?:^|_)(?:api_?key|access_key|password|passwd|secret|credentials?"
    r"|(?:hf|hub|auth|access|api|bearer)_token)$|^token$",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST_SECRET = 12  # characters; a shorter value would also be found in harmless text


def public(value: Any) -> Any:
    """A copy in plain containers that may be shown to others.

    Values under secret-like keys, and the values of secret-like environment variables wherever
    they stand, become "(hidden)"; absolute paths become relative to the working folder or to "~".

    Args:
        value: nested mappings, sequences, strings, numbers (NumPy's too), paths.

    Returns:
        dict, list, str, int, float, bool and None only; anything else as its `str`.
    """
    return _public(value, _secrets())


def _public(value: Any, secrets: list[str]) -> Any:
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, Mapping):
        return {
            str(key): HIDDEN
            if item is not None and _SECRET_KEY.search(str(key))
            else _public(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [_public(item, secrets) for item in items]
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy and torch
        return _public(value.tolist(), secrets)
    return _text(str(value), secrets)


def relative(path: str) -> str:
    """The path as seen from the working folder, if it lies below it, else unchanged."""
    return _below(path, _folder(Path.cwd), "")


def _text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _below(relative(text), _folder(Path.home), "~")


def _below(text: str, folder: Path | None, name: str) -> str:
    """`text` with `folder` at its beginning replaced by `name`."""
    if folder is None or folder == Path(folder.anchor):
        return text  # every absolute path begins with the root
    if text == str(folder):
        return name or "."
    prefix = str(folder) + os.sep
    return str(Path(name, text.removeprefix(prefix))) if text.startswith(prefix) else text


def _folder(find: Callable[[], Path]) -> Path | None:
    try:
        return find()
    except (OSError, RuntimeError):  # the working folder is gone, or nobody is at home
        return None


def _secrets() -> list[str]:
    found = {
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= _SHORTEST_SECRET
    }
    # The longest first, so that none is left half hidden by one that it contains.
    return sorted(found, key=lambda secret: (-len(secret), secret))
