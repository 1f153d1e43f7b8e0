"""An ensemble as it is uploaded: the same adapters and routing, without places on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elrea.errors import ConfigError
from elrea.method.ensemble.folder import ENSEMBLE, FREE
from elrea.method.ensemble.places import LOCAL
from elrea.models.peft_folders import CONFIG, read_folder
from elrea.reporting.model_card import README, Model, about_run, card, configuration
from elrea.store.files import checksums, read_json, with_checksum, write_json, write_text

WHAT = """`Ensemble.load("hub:{repo}", revision="...")` of the package elrea loads it: JSON and safetensors alone.

- {names}: plain PEFT folders; `PeftModel.from_pretrained(backbone, "{repo}", subfolder="{first}")` loads one alone.
- `routing/`: what a prompt's weights are computed from.
- `ensemble.json`: settings of features and router, the backbone's name and fingerprint, the SHA-256 of every file."""


def write_pushed(
    place: Path, folder: Path, facts: Mapping[str, Any], repo: str, backbone_id: str | None = None
) -> None:
    """Writes the folder to upload.

    Args:
        place: An empty folder.
        folder: Of the ensemble, already verified.
        facts: Contents of its `ensemble.json`.
        repo: Hub id that it will have.
        backbone_id: Hub id of the backbone, where the run had it in a folder.

    Raises:
        ConfigError: A file names a place on this machine that loading would need.
    """
    backbone = dict(facts["backbone"])
    origin = backbone.get("hub") or backbone.get("absolute") or backbone["name"]
    hub = backbone_id or backbone.get("hub")
    commit = backbone.get("commit") if backbone_id is None else None
    for name in facts["files"]:
        if name in FREE:
            continue
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, place / name)
        if Path(name).name == CONFIG:
            config = {
                **read_json(place / name),
                "base_model_name_or_path": hub or backbone["name"],
                "revision": commit,
            }
            write_json(place / name, config)
    described = {name: value for name, value in backbone.items() if name not in LOCAL}
    new = {**facts, "backbone": described, "files": checksums(place)}
    write_json(place / ENSEMBLE, with_checksum(new))
    for path in sorted(place.rglob("*.json")):
        for key, text in _texts(read_json(path)):
            if text.startswith(("/", "~")) and "/" in text[1:]:
                raise ConfigError(
                    f"{path.relative_to(place)}: {key} is {text!r}, a place on this machine; train with a hub id there"
                )
    members = [str(name) for name in facts["members"]]
    stated = Model.of(str(origin), commit, str(backbone["name"]))
    model = Model(hub or stated.name, hub, stated.licence)
    what = WHAT.format(repo=repo, names=", ".join(f"`{n}/`" for n in members), first=members[0])
    sections = {
        "Configuration": configuration(read_folder(place / members[0]).lora, facts),
        "Data and scores": about_run(folder),
    }
    write_text(
        place / README, card(f"ELREA ensemble on {model.name}", what, model, sections=sections)
    )


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a JSON value, with its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
