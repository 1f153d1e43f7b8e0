"""A finished ensemble as a folder that travels: plain PEFT adapters, and what routing needs."""

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
from elrea.errors import BackboneError, ElreaError, StoreError
from elrea.method.ensemble.folder import FORMAT, checked
from elrea.method.features.protocol import Features
from elrea.method.routing.student import ABOUT, WEIGHTS
from elrea.method.routing.weights import Router
from elrea.models.backbone import TINY, Pretrained, Tiny
from elrea.store.files import seal, sha256, walk, write_json, write_text

BY_GRADIENT = """the clusters' centroids (`centroids.safetensors`), and the base
  adapter with Adam's moments at each epoch's end (`epoch_1/` ...), with which the prompt's gradient is taken."""
BY_STUDENT = """a small model (`router.safetensors`) that guesses a prompt's
  cosines with the clusters' centroids from the base adapter's hidden states."""

CARD = """---
library_name: peft
base_model: {backbone}
---
# ELREA ensemble on {backbone}

One base adapter and {clusters} experts, trained on {data} and to be mixed by routing weights.

- `base/`, `expert-0/` ... are plain PEFT folders: `PeftModel.from_pretrained(backbone, "base")` loads one alone.
- `routing/` holds what a prompt's weights come from: {routing}
- `ensemble.json` says how: the features, the router, the backbone's name and fingerprint, every file's SHA-256.

| strategy | accuracy | n |
|---|---|---|
{rows}

Scores: {note}
"""


def save_ensemble(
    folder: Path,
    adapters: Mapping[str, Path],
    epochs: Sequence[Path],
    centroids: Tensor,
    facts: Mapping[str, Any],
    card: Mapping[str, Any],
    student: Path | None = None,
) -> None:
    """Writes an ensemble folder; one that is there already is replaced.

    Args:
        folder: Where to.
        adapters: PEFT folder of each member by name, the base first.
        epochs: The base adapter's folders per epoch, moments included; none where no gradient is needed.
        centroids: [C, d].
        facts: What `ensemble.json` holds beside the list of files.
        card: Values of the README's blanks.
        student: Folder of the distilled router, where there is one.
    """
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    for name, source in adapters.items():
        shutil.copytree(source, aside / name)
    for epoch in epochs:
        shutil.copytree(epoch, aside / "routing" / epoch.name)
    (aside / "routing").mkdir(exist_ok=True)
    if student is not None:
        for name in (WEIGHTS, ABOUT):
            shutil.copy(student / name, aside / "routing" / name)
    save_file({"centroids": centroids}, aside / "routing" / "centroids.safetensors")
    routing = BY_STUDENT if student else BY_GRADIENT
    write_text(aside / "README.md", CARD.format(**card, routing=routing))
    files = {path.relative_to(aside).as_posix(): sha256(path) for path in walk(aside)}
    own = {"format": FORMAT, "members": list(adapters), "epochs": len(epochs), "files": files}
    write_json(aside / "ensemble.json", seal({**facts, **own}))
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


@dataclass(frozen=True)
class Saved:
    """An ensemble's folder, every file of it checked.

    Attributes:
        folder: Where it is; a PEFT folder per member.
        backbone: Where the model under the adapters comes from.
        features: How a prompt's feature is taken.
        router: How cosines become weights.
        epochs: The base adapter's folders per epoch, moments included.
        centroids: [C, d].
        use_chat_template: As in training.
        files: SHA-256 of every file.
    """

    folder: Path
    backbone: Pretrained
    features: Features
    router: Router
    epochs: list[Path]
    centroids: Tensor
    use_chat_template: bool | None
    files: dict[str, str]

    def fits(self, dimension: int) -> None:
        """Refuses centroids that are not of the features' size.

        Raises:
            StoreError: d of the features, and of the centroids.
        """
        if self.centroids.shape[1] != dimension:
            raise StoreError(
                f"{self.folder / 'routing' / 'centroids.safetensors'}: of {self.centroids.shape[1]} dimensions, but "
                f"this ensemble's features have {dimension}"
            )

    def max_length(self) -> int:
        """Longest prompt with its answer, in tokens."""
        return self.backbone.length()


def read_ensemble(folder: Path, backbone: str | None = None) -> Saved:
    """Reads and checks what `save_ensemble` wrote.

    Args:
        folder: Of the ensemble.
        backbone: Folder or hub id of the model, where `ensemble.json` names none that is there.

    Raises:
        StoreError: A file is missing, damaged, of another version, or leads out of the folder.
        BackboneError: The backbone is not there, or another.
    """
    path = folder / "ensemble.json"
    facts = checked(folder)
    try:
        found = Saved(
            folder,
            backbone_of(facts, backbone),
            build(node(facts["features"], path, "features"), "features"),
            build(node(facts["router"], path, "router"), "router"),
            epochs_of(folder, facts),
            centroids_of(folder / "routing" / "centroids.safetensors"),
            facts["use_chat_template"],
            dict(facts["files"]),
        )
        members = list(facts["members"])
        experts = [f"expert-{i}" for i in range(len(members) - 1)]
        if members != ["base", *experts][: len(members)]:
            raise ValueError(f"its members are {members}")
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError, OSError) as error:
        raise StoreError(f"{path}: not as this version writes it ({error!r})") from error
    if len(members) != 1 + len(found.centroids):
        raise StoreError(f"{folder} holds no experts; make it by a run with ensemble=elrea")
    return found


CLASSES = {
    "features": {
        "GradientFeatures": "elrea.method.features.gradient.GradientFeatures",
        "Embedding": "elrea.method.features.embedding.Embedding",
    },
    "projection": {
        "Rademacher": "elrea.method.features.projection.Rademacher",
        "Full": "elrea.method.features.projection.Full",
        "Sjlt": "elrea.method.features.sjlt.Sjlt",
    },
    "router": {
        "Router": "elrea.method.routing.weights.Router",
        "Distilled": "elrea.method.routing.distilled.Distilled",
    },
}
"""What `ensemble.json` may name in which place."""


def epochs_of(folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """The base adapter's folders per epoch: as many as the list of files has."""
    count = len(
        {name.split("/")[1] for name in facts["files"] if name.startswith("routing/epoch_")}
    )
    if facts["epochs"] != count or type(facts["epochs"]) is not int:
        raise ValueError(f"epochs is {facts['epochs']!r}, but {count} are there")
    return [folder / "routing" / f"epoch_{i}" for i in range(1, count + 1)]


def centroids_of(path: Path) -> Tensor:
    found = load_file(path)["centroids"]
    if found.dim() != 2 or found.dtype != torch.float32 or not torch.isfinite(found).all():
        raise ValueError(f"centroids are {found.dtype} {list(found.shape)}, or not finite")
    return found


def backbone_of(facts: Mapping[str, Any], given: str | None) -> Pretrained:
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
