"""Names and shapes of the tensors in a safetensors file, from its header; torch is not imported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 100_000_000
"""Bytes of a header, as the format limits it."""


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by name.

    Raises:
        ValueError: The file cannot be read, or is not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= LARGEST:
                raise ValueError(f"{path.name} is not a safetensors file")
            header = json.loads(file.read(size))
        return {
            name: tuple(int(length) for length in entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not a readable safetensors file ({error})") from error
