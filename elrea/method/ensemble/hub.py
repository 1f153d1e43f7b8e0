"""Ensembles on the Hugging Face hub: read at a pinned commit, JSON and safetensors alone; torch is not imported."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from elrea.errors import ConfigError, NotHere, StoreError
from elrea.method.ensemble.folder import ENSEMBLE, FREE, checked, read_facts
from elrea.store.files import publish
from elrea.store.lock import Lease

COMMIT = re.compile(r"[0-9a-f]{40}")
SAFE = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*\.(?:json|safetensors)", re.ASCII)
"""Names of files that are downloaded: no pattern, no way out of the folder, no other type."""
REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


PREFIX = "hub:"
"""Says that a hub id follows."""


def repo_of(name: str, revision: str | None = None) -> str | None:
    """The hub id that a name means; None for a folder.

    It is one only if that is said, by the prefix or by a revision: `outputs/run1` with a slip in it must not be asked
    for on the hub, where anybody can be called `outputs`.

    Raises:
        ConfigError: No `owner/name` follows the prefix, or a revision is given of something else.
    """
    said = name.startswith(PREFIX)
    repo = name.removeprefix(PREFIX)
    if said and not REPO.fullmatch(repo):
        raise ConfigError(f"{name}: {PREFIX} must be followed by a hub id owner/name")
    if said:
        return repo
    if revision is None:
        return None
    if not REPO.fullmatch(repo) or Path(repo).exists():
        raise ConfigError(f"revision={revision}: {name} is a folder, not a hub id owner/name")
    return repo


def fetched(repo: str, revision: str | None = None) -> Path:
    """The folder of a hub ensemble, downloaded once for each commit to the Hugging Face cache.

    `ensemble.json` comes first. Only the files that it lists are downloaded after it, if they are JSON or safetensors,
    and their checksums are compared before the folder gets its name.

    Args:
        repo: `owner/name`.
        revision: A commit of 40 hexadecimal digits, which needs no network once it is here, a branch, or a tag; None is
            main.

    Raises:
        NotHere: There is no such repository or revision, or the hub cannot be reached.
        StoreError: It holds no ensemble, or a damaged one, or one that lists a file of another type.
    """
    from huggingface_hub import HfApi, constants

    home = Path(constants.HF_HOME) / "elrea-ensembles" / repo.replace("/", "--")
    commit = revision or ""
    if not COMMIT.fullmatch(commit):
        commit = str(asked(repo, lambda: HfApi().model_info(repo, revision=revision).sha))
        if not COMMIT.fullmatch(commit):
            raise NotHere(f"{repo}: the hub names no commit of it")
    folder = home / commit
    if (folder / ENSEMBLE).is_file():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with Lease(home / f"{commit}.lease"):
        if not (folder / ENSEMBLE).is_file():
            publish(folder, lambda place: _download(repo, commit, place))
    return folder


def asked(repo: str, call: Any) -> Any:
    """The result of a call of the hub's library, whose errors become one line.

    Raises:
        NotHere: The call failed.
    """
    try:
        return call()
    except Exception as error:  # the HTTP client raises classes of its own
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        what = lines[0][:200] if lines else type(error).__name__
        raise NotHere(f"{repo}: the hub says: {what}") from error


def _download(repo: str, commit: str, place: Path) -> None:
    from huggingface_hub import hf_hub_download, snapshot_download

    first = asked(repo, lambda: hf_hub_download(repo, ENSEMBLE, revision=commit))
    shutil.copyfile(first, place / ENSEMBLE)
    names = sorted(set(map(str, read_facts(place)["files"])) - FREE)
    for name in names:
        if not SAFE.fullmatch(name):
            raise StoreError(f"{repo}: lists {name!r}; only JSON and safetensors files are loaded")
    snapshot = Path(
        asked(repo, lambda: snapshot_download(repo, revision=commit, allow_patterns=names))
    )
    for name in names:
        if not (snapshot / name).is_file():
            raise StoreError(f"{repo}: {name} is missing in commit {commit}")
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, place / name)
    checked(place)
