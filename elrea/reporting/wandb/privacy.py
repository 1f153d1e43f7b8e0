"""Removes secrets and absolute paths from everything that is sent to W&B."""

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
_SHORTEST_SECRET = 12  # characters; a shorter value may also occur in harmless text


def public(value: Any) -> Any:
    """Copies a value into plain containers, without secrets and without paths that identify the user.

    Values of keys whose names suggest a secret become "(hidden)", and so do values of such environment variables
    anywhere in a text. Absolute paths become relative to the working folder or to "~".

    Args:
        value: Nested mappings, sequences, strings, numbers (also NumPy's and torch's) and paths.

    Returns:
        Only dict, list, str, int, float, bool and None; other values are converted with `str`.
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
    """The path relative to the working folder if it is inside it, else unchanged."""
    return _replace_prefix(path, _folder(Path.cwd), "")


def _text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _replace_prefix(relative(text), _folder(Path.home), "~")


def _replace_prefix(text: str, folder: Path | None, name: str) -> str:
    """Replaces `folder` at the beginning of `text` with `name`."""
    if folder is None or folder == Path(folder.anchor):
        return text  # the root is a prefix of every absolute path
    if text == str(folder):
        return name or "."
    prefix = str(folder) + os.sep
    return str(Path(name, text.removeprefix(prefix))) if text.startswith(prefix) else text


def _folder(find: Callable[[], Path]) -> Path | None:
    try:
        return find()
    except (OSError, RuntimeError):  # the working folder was deleted, or there is no home folder
        return None


def _secrets() -> list[str]:
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= _SHORTEST_SECRET
    }
    # Longest first: a secret that is contained in another one must not hide only a part of it.
    return sorted(values, key=lambda secret: (-len(secret), secret))
