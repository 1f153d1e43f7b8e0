"""What a server needs to route between exported adapters: `routing.json`, and the scales of MoE Routing (D.1)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elrea.errors import ConfigError, StoreError
from elrea.method.ensemble.ensemble_folder import CENTROIDS, ROUTING, served_strategy
from elrea.method.ensemble.folder import ENSEMBLE, GATE, SERVED, STEERING
from elrea.method.ensemble.registry import find_class, make
from elrea.method.ensemble.strategy import BASE, expert_names
from elrea.method.routing.weights import LearnedRouter, Router, Routing
from elrea.store.files import write_json

if TYPE_CHECKING:
    from elrea.method.ensemble.ensemble import Route

FORMAT = 1
"""Version of `routing.json`."""

Scales = list[dict[str, Any]]
"""`[{"id": 0, "scale": 0.1}, ...]`, the field `lora` of a request to llama-server."""

EXPERT = "expert-"
"""How experts' names begin."""


def write_routing(
    place: Path, ensemble: Path, facts: Mapping[str, Any], paths: Mapping[str, str]
) -> bool:
    """Writes `routing.json`, and in `routing/` the centroids and what a learned router was trained to.

    Args:
        place: Of the export.
        ensemble: Folder of the ensemble, already verified.
        facts: Contents of its `ensemble.json`.
        paths: Where each adapter is in the export, by name, in the order of their ids.

    Returns:
        Whether the router is learned, so that these files and the base adapter are all that routing needs; otherwise it
        needs gradients or other features of the prompt, and the ensemble's own folder.
    """
    try:
        kind = find_class(Router, facts["router"]["class"])
        backbone = facts["backbone"]
        answers = answering(facts)
    except (KeyError, TypeError, IndexError) as error:
        path = ensemble / ENSEMBLE
        raise StoreError(f"{path}: not in the form that this version writes ({error!r})") from error
    learned = issubclass(kind, LearnedRouter)
    (place / ROUTING).mkdir()
    for name in (CENTROIDS, *kind.files):
        shutil.copyfile(ensemble / ROUTING / name, place / ROUTING / name)
    if learned and BASE not in paths:
        shutil.copytree(ensemble / BASE, place / ROUTING / BASE)
    hub = {name: backbone[name] for name in ("name", "hub", "commit") if backbone.get(name)}
    described = {
        "format": FORMAT,
        "backbone": {**hub, "fingerprint": backbone["fingerprint"]},
        "adapters": [
            {"id": n, "name": name, "path": path} for n, (name, path) in enumerate(paths.items())
        ],
        "nearest": [name if name in paths else None for name in answers],
        "steered": facts.get(STEERING),
        "strategy": facts.get(SERVED),
        "gate": facts.get(GATE),
        "router": facts["router"],
        "features": facts["features"],
        "prompts": facts.get("prompts"),
        "use_chat_template": facts.get("use_chat_template"),
        "learned": learned,
        "files": [f"{ROUTING}/{name}" for name in (CENTROIDS, *kind.files)],
    }
    write_json(place / "routing.json", described, ordered=True)
    return learned


def answering(facts: Mapping[str, Any]) -> list[str]:
    """The member that answers each cluster's prompts where one adapter answers: its own expert, or where the ensemble
    answers by a strategy of its own, `member_alone` there; none where prompts are not routed.

    Args:
        facts: Contents of `ensemble.json`.

    Raises:
        StoreError: It names no members, or a strategy that no ensemble answers by.
    """
    try:
        members = [str(name) for name in facts["members"]]
        if (strategy := served_strategy(facts.get(SERVED))) is None:
            return members[1:]
        if not strategy.routed:
            return []
        count = len({*members} & {*expert_names(len(members))})
        alone = Routing(torch.eye(count), make(facts["router"], Router, "router"))
        names = strategy.members(alone)
        return [
            member_alone(dict(zip(names, weights, strict=True)))
            for weights in strategy.weights(alone).tolist()
        ]
    except ConfigError as error:
        raise StoreError(f"{ENSEMBLE}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise StoreError(
            f"{ENSEMBLE}: not in the form that this version writes ({error!r})"
        ) from error


def member_alone(weights: Mapping[str, float]) -> str:
    """The member that answers where only one adapter can: the expert with the largest weight; if none has any, as where
    dev keeps the nearest expert out, the member with the largest.

    Args:
        weights: By member's name.
    """
    experts = {name: w for name, w in weights.items() if name.startswith(EXPERT) and w > 0}
    chosen = experts or weights
    return max(chosen, key=chosen.__getitem__)


def scales(weights: Mapping[str, float], names: Sequence[str]) -> Scales:
    """λ = w/Σw of every adapter that was exported, as (D.1) weighs its output; 0 for all if Σw is 0.

    Args:
        weights: w by member's name; a member that was not exported is left out of the sum.
        names: The adapters in the order of their ids.
    """
    total = sum(weights.get(name, 0.0) for name in names)
    return [
        {"id": n, "scale": weights.get(name, 0.0) / total if total else 0.0}
        for n, name in enumerate(names)
    ]


def fixed_scales(names: Sequence[str]) -> dict[str, Any]:
    """Scales that no prompt changes: all alike, and each adapter alone."""
    return {
        "uniform": scales(dict.fromkeys(names, 1.0), names),
        "alone": {name: scales({name: 1.0}, names) for name in names},
    }


def route_line(name: str, route: Route, names: Sequence[str]) -> dict[str, Any]:
    """One prompt's route: the nearest cluster's adapter, every member's weight, and the scales of (D.1).

    Args:
        name: The prompt's id.
        route: As `Ensemble.route` returns it.
        names: The adapters that were exported, in the order of their ids.
    """
    return {
        "id": name,
        "nearest": member_alone(route.weights),
        "weights": route.weights,
        "lora": scales(route.weights, names),
    }
