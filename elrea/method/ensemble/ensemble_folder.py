"""Exported ensembles: writes and reads the folder with the adapters and all that routing needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from elrea.data.options import Options
from elrea.data.wording import Wording, wording_of
from elrea.errors import ConfigError, StoreError
from elrea.method.ensemble.folder import ENSEMBLE, FORMAT, SERVED, SERVED_FORMAT, STEERING, checked
from elrea.method.ensemble.places import find_backbone, point
from elrea.method.ensemble.registry import find_class, make
from elrea.method.ensemble.strategies.steered import Steered
from elrea.method.ensemble.strategy import BASE, DevGated, Strategy, expert_names
from elrea.method.features.base import Features
from elrea.method.routing.weights import Router, Routing
from elrea.models.training.steering import member_names
from elrea.store.files import (
    checksums,
    publish,
    with_checksum,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from elrea.models.backbone import Pretrained

ROUTING, CENTROIDS = "routing", "centroids.safetensors"

CARD = """---
library_name: peft
base_model: {backbone}
---
# ELREA ensemble on {backbone}

{what}

- `base/`, `{first}/` ... are plain PEFT folders: `AutoPeftModelForCausalLM.from_pretrained("base")` loads one alone on
  the backbone where the run had it, `PeftModel.from_pretrained(backbone, "base")` on one that was moved.
- `routing/` holds what a prompt's weights are computed from: {routing}
- `ensemble.json` holds the settings of features and router, the backbone's name, place and fingerprint, and the SHA-256
  of every file.

| strategy | accuracy | n |
|---|---|---|
{rows}

Scores: {note}
"""
"""README of an exported ensemble."""

EXPERTS = "One base adapter and {clusters} experts, trained on {data}. Routing weights mix them prompt by prompt."
CLUSTERS_ONLY = "the clusters' centroids (`centroids.safetensors`); no prompt is routed."
ANSWERS = "One base adapter and {clusters} experts, trained on {data}. "
OWN_WAY = "They answer by the strategy {name}, whose code has to be installed and allowed where they are loaded."
ONE = "One adapter that {clusters} clusters steer, trained on {data}. "
NEAREST = f"{ONE}A prompt is answered by the adapter of its nearest cluster."
MIXED = f"{ONE}Routing weights mix the clusters' adapters inside the layers, in one pass."
"""What the README says of the members."""


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
            point(new / name, facts["backbone"])
        for epoch in epochs:
            shutil.copytree(epoch, new / ROUTING / epoch.name)
            point(new / ROUTING / epoch.name, facts["backbone"])
        (new / ROUTING).mkdir(exist_ok=True)
        kind = find_class(Router, facts["router"]["class"])
        if router is not None:
            for name in kind.files:
                shutil.copy(router / name, new / ROUTING / name)
        save_file({"centroids": centroids}, new / ROUTING / CENTROIDS)
        steered = facts.get(STEERING)
        what = EXPERTS if steered is None else MIXED if steered["soft"] else NEAREST
        routing = kind.card
        if SERVED in facts:
            strategy: Strategy = make(facts[SERVED], Strategy, SERVED)
            what = ANSWERS + (strategy.card or OWN_WAY.format(name=facts[SERVED]["class"]))
            routing = kind.card if strategy.routed else CLUSTERS_ONLY
        first = next((name for name in adapters if name != BASE), "expert-0")
        texts = {"what": what.format(**card), "first": first, "routing": routing}
        write_text(new / "README.md", CARD.format(**card, **texts))
        files = checksums(new)
        layout = {
            "format": SERVED_FORMAT if SERVED in facts else FORMAT,
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
        files: SHA-256 of every file.
        options: How prompts with choices are asked, as in training (`elrea.data.options`).
        strategy: The one that it answers by; None: ELREA, or `steered`.
        steered: The strategy, where the members are those of one adapter that clusters steer; None: experts.
    """

    folder: Path
    backbone: Pretrained
    features: Features
    router: Router
    epochs: list[Path]
    centroids: Tensor
    wording: Wording
    files: dict[str, str]
    options: Options = "text"
    steered: Steered | None = None
    strategy: Strategy | None = None

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


def read_ensemble(
    folder: Path, backbone: str | None = None, *, trust_remote_code: bool = False
) -> Saved:
    """Reads what `save_ensemble` wrote, and checks every file.

    Args:
        folder: Folder of the ensemble.
        backbone: Folder or hub id of the model; None looks for it (`places.find_backbone`).
        trust_remote_code: Let a backbone that comes with code run it.

    Raises:
        StoreError: A file is missing, damaged, of another version, or outside the folder.
        BackboneError: The backbone is missing, or another one.
    """
    path = folder / ENSEMBLE
    facts = checked(folder)
    try:
        saved = Saved(
            folder,
            find_backbone(facts, folder, backbone, trust_remote_code=trust_remote_code),
            make(facts["features"], Features, "features"),
            make(facts["router"], Router, "router"),
            _epochs(folder, facts),
            _centroids(folder / ROUTING / CENTROIDS),
            wording_of(facts["use_chat_template"], facts.get("prompts")),
            dict(facts["files"]),
            facts.get("options", "text"),  # ensembles of earlier versions have no such field
            _steered(facts.get(STEERING)),
            served_strategy(facts.get(SERVED)),
        )
        if saved.options not in get_args(Options):
            raise ValueError(f"options is {saved.options!r}")
        members = list(facts["members"])
        names_of = member_names if saved.steered else expert_names
        more = _more(saved, members)
        members = members[: len(members) - len(more)]
        if members != [BASE, *names_of(len(members) - 1)][: len(members)]:
            raise ValueError(f"its members are {members}")
    except ConfigError as error:
        raise StoreError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError, OSError) as error:
        raise StoreError(f"{path}: not in the form that this version writes ({error!r})") from error
    if len(members) != 1 + len(saved.centroids):
        raise StoreError(f"{folder} holds no experts; make it by a run with ensemble=elrea")
    return saved


def served_strategy(facts: object) -> Strategy | None:
    """The strategy by its description; only one whose members are in the folder can be named.

    Raises:
        ConfigError, ValueError: It cannot be made, or no ensemble answers by it.
    """
    if facts is None:
        return None
    strategy: Strategy = make(facts, Strategy, SERVED)
    if not strategy.exported or (isinstance(strategy, DevGated) and strategy.undecided):
        raise ValueError(f"{SERVED} is {facts!r}")
    return strategy


def _more(saved: Saved, members: Sequence[str]) -> list[str]:
    """The last members: those of the strategy that are neither the base adapter nor an expert.

    Raises:
        ValueError: One of the strategy's members is not there.
    """
    if saved.strategy is None:
        return []
    router, count = saved.router, len(saved.centroids)
    wanted = saved.strategy.members(Routing(torch.empty(0, count), router))
    more = [name for name in wanted if name not in (BASE, *expert_names(count))]
    if more != list(members[len(members) - len(more) :]) or not set(wanted).issubset(members):
        raise ValueError(f"its members are {list(members)}, not {wanted}")
    # One row of cosines finds clusters that are not there.
    saved.strategy.weights(Routing(torch.zeros(1, count), router))
    return more


def used_members(facts: Mapping[str, Any]) -> list[str]:
    """The members that have a weight for some prompt, in the order of the folder.

    Those of a strategy of its own are found by prompts that are each cluster's alone, and one that is no cluster's.

    Args:
        facts: Contents of `ensemble.json`.

    Raises:
        StoreError: It names a strategy or router that cannot be made.
    """
    members = [str(name) for name in facts["members"]]
    if SERVED not in facts:
        return members[1:] if STEERING in facts else members
    try:
        strategy, router = served_strategy(facts[SERVED]), make(facts["router"], Router, "router")
        if strategy is None:
            raise ValueError("it is null")
        count = len({*members} & {*expert_names(len(members))})
        routing = Routing(torch.cat([torch.eye(count), torch.zeros(1, count)]), router)
        wanted, weighted = strategy.members(routing), strategy.weights(routing).ne(0).any(0)
        used = {name for name, some in zip(wanted, weighted.tolist(), strict=True) if some}
        if not used or not used.issubset(members):
            raise ValueError(f"its members are {members}, not {wanted}")
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{ENSEMBLE}: {SERVED}: {error}") from error
    return [name for name in members if name in used]


def _steered(facts: object) -> Steered | None:
    """The strategy by what `steered_facts` wrote."""
    if facts is None:
        return None
    if not isinstance(facts, dict) or facts.keys() != {"soft", "added"}:
        raise ValueError(f"{STEERING} is {facts!r}")
    soft, added = facts["soft"], facts["added"]
    if type(soft) is not bool or type(added) is not int:
        raise ValueError(f"{STEERING} is {facts!r}")
    return Steered(soft=soft, added=added)


def steered_facts(strategy: Steered) -> dict[str, Any]:
    """What `ensemble.json` says of a steered adapter beside its members."""
    return {STEERING: {"soft": strategy.soft, "added": strategy.added}}


def _epochs(folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """Folders of the base adapter per epoch; their number has to be the same in the list of files."""
    names = {name.split("/")[1] for name in facts["files"] if name.startswith(f"{ROUTING}/epoch_")}
    if facts["epochs"] != len(names) or type(facts["epochs"]) is not int:
        raise ValueError(f"epochs is {facts['epochs']!r}, but {len(names)} are there")
    numbers = sorted(int(name.removeprefix("epoch_")) for name in names)
    return [folder / ROUTING / f"epoch_{number}" for number in numbers]


def _centroids(path: Path) -> Tensor:
    """δ̄ [C, d] in float32, all finite."""
    centroids = load_file(path)["centroids"]
    finite = bool(torch.isfinite(centroids).all())
    if centroids.dim() != 2 or centroids.dtype != torch.float32 or not finite:
        raise ValueError(f"centroids are {centroids.dtype} {list(centroids.shape)}, or not finite")
    return centroids
