"""What a model folder is: that its weights are all in there, and a name for what is in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from elrea.errors import BackboneError


def fingerprint(folder: Path, code: bool) -> str:
    """SHA-256 over the names and contents of a model folder's weights, configuration, tokenizer and, if run, code."""
    if not (folder / "config.json").is_file():
        raise BackboneError(f"{folder}: no config.json there; is it a model folder?")
    if not any(folder.glob("*.safetensors")):
        raise BackboneError(
            f"{folder}: no .safetensors file there; other weights are not loaded, convert them first"
        )
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"{folder / 'config.json'}: no valid JSON ({error})") from error
    check_parts(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".model", ".txt", ".jinja", *[".py"] * code):
            with path.open("rb") as file:
                digest.update(
                    f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
    return digest.hexdigest()


def check_parts(folder: Path) -> None:
    """Refuses an index of weights that names a file elsewhere: what is not in the folder is no part of the model."""
    for path in folder.glob("*.index.json"):
        try:
            parts = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BackboneError(f"{path}: no index of weights ({error!r})") from error
        for part in sorted(map(str, parts)):
            if part in (".", "..") or Path(part).name != part:
                raise BackboneError(f"{path} names {part!r}, which is not in that folder")
