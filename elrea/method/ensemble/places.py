"""Where an exported ensemble finds its backbone again; importing this module does not import torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError, ConfigError, ElreaError, StoreError
from elrea.method.ensemble.folder import ENSEMBLE
from elrea.models.backbone import TINY, Pretrained, Tiny
from elrea.store.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMIT = re.compile(r"[0-9a-f]{40}")
BUILT_IN = Tiny().shown_name
LOCAL = ("absolute", "relative")
"""Fields of the backbone in `ensemble.json` that are places on this machine."""
KEPT = {field.name for field in fields(Pretrained)} - {"trust_remote_code", "name", "revision"}
"""Settings of the backbone that `ensemble.json` may have."""


def place_of(backbone: Pretrained, identity: str) -> dict[str, Any]:
    """What `ensemble.json` says of a backbone's place.

    Args:
        backbone: Of the run.
        identity: As `Pretrained.identity` has it.

    Returns:
        For a folder its `absolute` place and, if it was given relative to the working folder, its `relative` one; for a
        hub model its id as `hub` and its `commit`. `code` if it needs trust_remote_code.
    """
    code = {"code": True} if backbone.trust_remote_code else {}
    if not backbone.here:
        return {"hub": backbone.location, "commit": identity.rpartition("@")[2], **code}
    given = Path(backbone.location)
    relative = {} if given.is_absolute() else {"relative": given.as_posix()}
    return {"absolute": os.path.abspath(given), **relative, **code}


def point(folder: Path, place: Mapping[str, Any]) -> None:
    """Lets an adapter's PEFT folder name its backbone, so that PEFT alone finds it.

    Args:
        folder: With `adapter_config.json`.
        place: As `place_of` has it; without a place nothing is changed.
    """
    name = place.get("hub") or place.get("absolute")
    if not name:
        return
    path = folder / "adapter_config.json"
    config = {**read_json(path), "base_model_name_or_path": name, "revision": place.get("commit")}
    write_json(path, config)


def find_backbone(
    facts: Mapping[str, Any],
    ensemble: Path,
    given: str | None = None,
    *,
    trust_remote_code: bool = False,
    verify: bool = True,
) -> Pretrained:
    """The backbone that `ensemble.json` describes.

    It is the built-in model, a hub model at its commit, or a folder: where it was, or else at the same place relative
    to the working folder or to a folder around the ensemble, as after moving both. Only a backbone with the fingerprint
    of the trained one counts.

    Args:
        facts: Contents of `ensemble.json`.
        ensemble: The ensemble's folder.
        given: Folder or hub id to take instead of looking for it.
        trust_remote_code: Let a backbone that comes with code run it.
        verify: Compare fingerprints; False only looks whether there is a folder.

    Raises:
        BackboneError: There is none, or another one; what to pass.
        StoreError: The facts do not describe one.
    """
    try:
        described = dict(facts["backbone"])
        wanted, name = str(described.pop("fingerprint")), str(described["name"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{ensemble / ENSEMBLE}: not in the form that this version writes ({error!r})"
        ) from error
    if described.get("code") and not trust_remote_code:
        raise BackboneError(
            f"the ensemble's backbone {name!r} comes with code of its own; if you trust it, pass "
            "trust_remote_code=True to Ensemble.load, or --trust-remote-code"
        )
    options = {key: value for key, value in described.items() if key in KEPT}
    options["trust_remote_code"] = trust_remote_code and bool(described.get("code"))
    if given is None and (name == BUILT_IN or described.get("absolute") == str(TINY)):
        given = BUILT_IN
    if given is not None:
        return _given(given, options, described, wanted, verify=verify)
    if hub := _hub(described, wanted):
        found = _made(hub[0], options, hub[1])
        if verify and found.identity() != wanted:
            raise BackboneError(f"{hub[0]} is not the backbone that the adapters were trained on")
        return found
    tried = []
    for folder in _folders(described, ensemble):
        found = _made(str(folder), options)
        if not verify or _identity(found) == wanted:
            return found
        tried.append(str(folder))
    where = f"{', '.join(tried)}: of another model" if tried else "it is not where the run had it"
    raise BackboneError(
        f"the ensemble's backbone {name!r} is needed: give its folder, as backbone= or --backbone ({where})"
    )


def _given(
    given: str, options: dict[str, Any], described: Mapping[str, Any], wanted: str, *, verify: bool
) -> Pretrained:
    """The backbone that the user names, if it is the trained one."""
    name = described["name"]
    commit = described.get("revision") if given == name else None
    if (hub := _hub(described, wanted)) and given == hub[0]:
        commit = hub[1]
    found = _made(given, options, commit)
    try:
        if not verify and found.here:
            return found
        identity = found.identity()
    except ElreaError as error:
        raise BackboneError(
            f"the ensemble's backbone {name!r} is needed: give its folder or hub id ({error})"
        ) from error
    if identity != wanted and not _is_snapshot(found, wanted):
        raise BackboneError(
            f"{given} is not the backbone that the adapters were trained on ({name})"
        )
    return found


def _hub(described: Mapping[str, Any], wanted: str) -> tuple[str, str] | None:
    """Id and commit of a hub model; older versions have them in the fingerprint alone."""
    name, _, commit = wanted.rpartition("@")
    if not name:
        return None
    return str(described.get("hub") or name), commit


def _is_snapshot(backbone: Pretrained, wanted: str) -> bool:
    """Whether a folder is that commit in the hub's cache, `.../snapshots/<commit>`."""
    commit, path = wanted.rpartition("@")[2], Path(backbone.location)
    return bool(COMMIT.fullmatch(commit)) and path.parts[-2:] == ("snapshots", commit)


def _made(name: str, options: dict[str, Any], revision: str | None = None) -> Pretrained:
    """The backbone of that name, with the settings of the run."""
    from elrea.config import build

    built_in = name == BUILT_IN or Path(name) == TINY
    kind = Tiny if built_in else Pretrained
    node = {"_target_": f"{kind.__module__}.{kind.__name__}", **options}
    if not built_in:
        node |= {"name": name, "revision": revision}
    made: Pretrained = build(node, "backbone")
    return made


def _identity(backbone: Pretrained) -> str | None:
    try:
        return backbone.identity()
    except ElreaError:
        return None


def _folders(described: Mapping[str, Any], ensemble: Path) -> Iterator[Path]:
    """Existing folders where the backbone may be, the likeliest first."""
    around = [*ensemble.absolute().parents, *ensemble.resolve().parents]
    starts = list(dict.fromkeys([Path.cwd(), *around]))
    seen = set()
    for place in _candidates(described, ensemble, starts):
        if place.is_dir() and (real := place.resolve()) not in seen:
            seen.add(real)
            yield place


def _candidates(
    described: Mapping[str, Any], ensemble: Path, starts: Sequence[Path]
) -> Iterator[Path]:
    told = [
        described.get("absolute"),
        described.get("relative"),
        _named_by_run(ensemble.absolute().parent),
    ]
    paths = [Path(os.path.expanduser(each)) for each in told if isinstance(each, str) and each]
    yield from (path for path in paths if path.is_absolute())
    yield from (start / path for path in paths if not path.is_absolute() for start in starts)
    for path in paths:  # moved together with the ensemble: the end of the path is the same
        parts = path.parts[1:] if path.is_absolute() else path.parts
        for start in starts:
            yield from (start.joinpath(*parts[first:]) for first in range(len(parts)))


def _named_by_run(run: Path) -> str | None:
    """The name of the backbone in the config of the run around an ensemble; older ensembles do not have it."""
    from elrea.config import load_config

    try:
        name = load_config(run / "config.yaml").backbone.get("name")
    except (ConfigError, AttributeError, ValueError, OSError):
        return None
    except Exception as error:  # OmegaConf's own errors have no common base that is public
        if type(error).__module__.startswith("omegaconf"):
            return None
        raise
    return name if isinstance(name, str) else None
