"""Names and shapes of the tensors in a safetensors file, from its header; torch is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by name.

    Raises:
        ValueError: The file cannot be read, or is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path.name} is not a readable safetensors file ({error})") from error
