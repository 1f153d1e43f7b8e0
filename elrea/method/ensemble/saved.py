"""Exported ensembles: writes and reads the folder with the adapters and all that routing needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from elrea.config import build
from elrea.data.wording import Wording, wording_of
from elrea.errors import BackboneError, ConfigError, ElreaError, StoreError
from elrea.method.ensemble.folder import ENSEMBLE, FORMAT, checked
from elrea.method.ensemble.registry import find_class, make
from elrea.method.features.protocol import Features
from elrea.method.routing.weights import Router
from elrea.models.backbone import TINY, Pretrained, Tiny
from elrea.store.files import (
    checksums,
    publish,
    with_checksum,
    write_json,
    write_text,
)

ROUTING, CENTROIDS = "routing", "centroids.safetensors"

CARD = """---
library_name: peft
base_model: {backbone}
---
# ELREA ensemble on {backbone}

One base adapter and {clusters} experts, trained on {data}. Routing weights mix them prompt by prompt.

- `base/`, `expert-0/` ... are plain PEFT folders: `PeftModel.from_pretrained(backbone, "base")` loads one alone.
- `routing/` holds what a prompt's weights are computed from: {routing}
- `ensemble.json` holds the settings of features and router, the backbone's name and fingerprint, and the SHA-256 of
  every file.

| strategy | accuracy | n |
|---|---|---|
{rows}

Scores: {note}
"""
"""README of an exported ensemble."""


def save_ensemble(
    folder: Path,
    adapters: Mapping[str, Path],
    epochs: Sequence[Path],
    centroids: Tensor,
    facts: Mapping[str, Any],
    card: Mapping[str, Any],
    router: Path | None = None,
) -> None:
    """Writes an ensemble's folder; an existing one is replaced.

    Args:
        folder: Where to write.
        adapters: PEFT folder of each member by name, the base adapter first.
        epochs: Folders of the base adapter per epoch, with moments; empty if routing needs no gradient.
        centroids: δ̄ [C, d].
        facts: Contents of `ensemble.json` beside the list of files; `features` and `router` are descriptions.
        card: Values for the blanks of the README, without `routing`.
        router: Folder of the router's stage, for a router that was trained.
    """

    def write(new: Path) -> None:
        for name, source in adapters.items():
            shutil.copytree(source, new / name)
        for epoch in epochs:
            shutil.copytree(epoch, new / ROUTING / epoch.name)
        (new / ROUTING).mkdir(exist_ok=True)
        kind = find_class(Router, facts["router"]["class"])
        if router is not None:
            for name in kind.files:
                shutil.copy(router / name, new / ROUTING / name)
        save_file({"centroids": centroids}, new / ROUTING / CENTROIDS)
        write_text(new / "README.md", CARD.format(**card, routing=kind.card))
        files = checksums(new)
        layout = {
            "format": FORMAT,
            "members": list(adapters),
            "epochs": len(epochs),
            "files": files,
        }
        write_json(new / ENSEMBLE, with_checksum({**facts, **layout}))

    publish(folder, write)


@dataclass(frozen=True)
class Saved:
    """The contents of an ensemble's folder.

    Attributes:
        folder: The folder; it has a PEFT folder per member.
        backbone: Source of the model under the adapters.
        features: How a prompt's feature is computed.
        router: How cosines become weights.
        epochs: Folders of the base adapter per epoch, with moments.
        centroids: δ̄ [C, d].
        wording: How prompts are worded, as in training.
        options: How rows with choices are asked, as in training: `letters` or `text`.
        files: SHA-256 of every file.
    """

    folder: Path
    backbone: Pretrained
    features: Features
    router: Router
    epochs: list[Path]
    centroids: Tensor
    wording: Wording
    options: str
    files: dict[str, str]

    @property
    def routing(self) -> Path:
        """Folder of what routing needs."""
        return self.folder / ROUTING

    def check_dimension(self, dimension: int) -> None:
        """Rejects centroids whose dimension differs from the features'.

        Raises:
            StoreError: They differ.
        """
        if self.centroids.shape[1] != dimension:
            raise StoreError(
                f"{self.routing / CENTROIDS}: {self.centroids.shape[1]} dimensions, but this ensemble's features "
                f"have {dimension}"
            )

    def max_length(self) -> int:
        """Longest prompt with its answer, in tokens."""
        return self.backbone.length()


def read_ensemble(folder: Path, backbone: str | None = None) -> Saved:
    """Reads what `save_ensemble` wrote, and checks every file.

    Args:
        folder: Folder of the ensemble.
        backbone: Folder or hub id of the model, if the one that `ensemble.json` names is missing.

    Raises:
        StoreError: A file is missing, damaged, of another version, or outside the folder.
        BackboneError: The backbone is missing, or another one.
    """
    path = folder / ENSEMBLE
    facts = checked(folder)
    try:
        saved = Saved(
            folder,
            _backbone(facts, backbone),
            make(facts["features"], Features, "features"),
            make(facts["router"], Router, "router"),
            _epochs(folder, facts),
            _centroids(folder / ROUTING / CENTROIDS),
            wording_of(facts["use_chat_template"], facts.get("prompts")),
            _options(facts.get("options", "text")),
            dict(facts["files"]),
        )
        members = list(facts["members"])
        experts = [f"expert-{i}" for i in range(len(members) - 1)]
        if members != ["base", *experts][: len(members)]:
            raise ValueError(f"its members are {members}")
    except ConfigError as error:
        raise StoreError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError, OSError) as error:
        raise StoreError(f"{path}: not in the form that this version writes ({error!r})") from error
    if len(members) != 1 + len(saved.centroids):
        raise StoreError(f"{folder} holds no experts; make it by a run with ensemble=elrea")
    return saved


def _options(value: object) -> str:
    """The setting `data.options` of the training; an ensemble of an older version has none."""
    if value not in ("letters", "text"):
        raise ValueError(f"options is {value!r}")
    return str(value)


def _epochs(folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """Folders of the base adapter per epoch; their number has to be the same in the list of files."""
    count = len(
        {name.split("/")[1] for name in facts["files"] if name.startswith(f"{ROUTING}/epoch_")}
    )
    if facts["epochs"] != count or type(facts["epochs"]) is not int:
        raise ValueError(f"epochs is {facts['epochs']!r}, but {count} are there")
    return [folder / ROUTING / f"epoch_{i}" for i in range(1, count + 1)]


def _centroids(path: Path) -> Tensor:
    """δ̄ [C, d] in float32, all finite."""
    centroids = load_file(path)["centroids"]
    finite = bool(torch.isfinite(centroids).all())
    if centroids.dim() != 2 or centroids.dtype != torch.float32 or not finite:
        raise ValueError(f"centroids are {centroids.dtype} {list(centroids.shape)}, or not finite")
    return centroids


def _backbone(facts: Mapping[str, Any], given: str | None) -> Pretrained:
    """The backbone that `ensemble.json` describes, or a given one, if its fingerprint is the same."""
    described = dict(facts["backbone"])
    fingerprint = described.pop("fingerprint")
    known = {field.name for field in fields(Pretrained)} - {"trust_remote_code", "name"}
    options = {name: value for name, value in described.items() if name in known}
    name = given or described["name"]
    built_in = name == "elrea-tiny" or Path(name) == TINY
    kind = Tiny if built_in else Pretrained
    node = {"_target_": f"{kind.__module__}.{kind.__name__}", **options}
    source: Pretrained = build(node if built_in else {**node, "name": name}, "backbone")
    try:
        identity = source.identity()
    except ElreaError as error:
        raise BackboneError(
            f"the ensemble's backbone {described['name']!r} is needed: give its folder or hub id ({error})"
        ) from error
    if identity != fingerprint:
        raise BackboneError(
            f"{name} is not the backbone that the adapters were trained on ({described['name']})"
        )
    return source
