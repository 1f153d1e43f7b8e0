"""What `ensemble.json` describes, as objects: nothing but what belongs in an ensemble is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from elrea.backbone.load import TINY, Pretrained, Tiny
from elrea.config import build
from elrea.errors import BackboneError, ElreaError, StoreError

CLASSES = {
    "features": {
        "GradientFeatures": "elrea.features.extract.GradientFeatures",
        "Embedding": "elrea.features.embedding.Embedding",
    },
    "projection": {
        "Rademacher": "elrea.features.projection.Rademacher",
        "Full": "elrea.features.projection.Full",
        "Sjlt": "elrea.features.sjlt.Sjlt",
    },
    "router": {
        "Router": "elrea.routing.weights.Router",
        "Distilled": "elrea.routing.distilled.Distilled",
    },
}
"""What `ensemble.json` may name in which place."""


def epochs(folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """The base adapter's folders per epoch: as many as the list of files has."""
    count = len(
        {name.split("/")[1] for name in facts["files"] if name.startswith("routing/epoch_")}
    )
    if facts["epochs"] != count or type(facts["epochs"]) is not int:
        raise ValueError(f"epochs is {facts['epochs']!r}, but {count} are there")
    return [folder / "routing" / f"epoch_{i}" for i in range(1, count + 1)]


def centroids(path: Path) -> Tensor:
    found = load_file(path)["centroids"]
    if found.dim() != 2 or found.dtype != torch.float32 or not torch.isfinite(found).all():
        raise ValueError(f"centroids are {found.dtype} {list(found.shape)}, or not finite")
    return found


def backbone(facts: Mapping[str, Any], given: str | None) -> Pretrained:
    told = dict(facts["backbone"])
    fingerprint = told.pop("fingerprint")
    known = {field.name for field in fields(Pretrained)} - {"trust_remote_code"}
    options = {name: value for name, value in told.items() if name in known - {"name"}}
    name = given or told["name"]
    own = name == "elrea-tiny" or Path(name) == TINY
    made = {"_target_": f"{Tiny.__module__}.{(Tiny if own else Pretrained).__name__}", **options}
    source: Pretrained = build(made if own else {**made, "name": name}, "backbone")
    try:
        there = source.identity()
    except ElreaError as error:
        raise BackboneError(
            f"the ensemble's backbone {told['name']!r} is needed: give its folder or hub id ({error})"
        ) from error
    if there != fingerprint:
        raise BackboneError(
            f"{name} is not the backbone that the adapters were trained on ({told['name']})"
        )
    return source


def node(described: Mapping[str, Any], path: Path, place: str) -> dict[str, Any]:
    """A config node of what `ensemble.json` describes; no class but those that belong in its place."""
    kind = described["class"]
    if kind not in CLASSES.get(place, {}):
        raise StoreError(f"{path}: names {kind!r}, which is no part of an ensemble")
    rest = {
        name: node(value, path, name) if isinstance(value, Mapping) else value
        for name, value in described.items()
        if name != "class"
    }
    return {"_target_": CLASSES[place][kind], **rest}
