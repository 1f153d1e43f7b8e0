"""Uploads a finished ensemble to the Hugging Face hub: a folder per adapter, routing files and a card.

    elrea push outputs/<day>/<time> --repo user/name
    elrea push outputs/<day>/<time> --repo user/name --branch seed-1 --backbone-id org/model

`Ensemble.load("hub:user/name", revision=...)` loads it. Only JSON, safetensors and README.md are
uploaded. Places on this machine are left out: the adapters and the card name the backbone by
its hub id, which --backbone-id gives for a model that the run had in a folder. Log in by `hf
auth login`, or set HF_TOKEN.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elrea.commands.arguments import add_plugins, ensemble_folder
from elrea.commands.exit import announce, one_line_errors
from elrea.commands.parser import Parser
from elrea.errors import ConfigError, ElreaError, NotHere, StoreError
from elrea.method.ensemble.folder import ENSEMBLE, checked
from elrea.method.ensemble.hub import REPO
from elrea.store.files import read_json

TYPES = ["*.json", "*.safetensors", "README.md"]
STALE = ["base/*", "expert-*/*", "steered-*/*", "parameter-matched/*", "routing/*"]
"""Folders of an ensemble that was pushed there before, beside those that it lists; the new one's replace them."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process.

    Raises:
        ElreaError: The ensemble cannot be read, there is no token or no network, or the hub refuses.
    """
    given = _parser().parse_args(argv)
    for option in ("repo", "backbone_id"):
        value = getattr(given, option)
        if value is not None and not REPO.fullmatch(value):
            raise ConfigError(f"--{option.replace('_', '-')} {value}: must be owner/name")
    folder = ensemble_folder(given.run)
    facts = checked(folder)
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise ConfigError("the hub is switched off here (HF_HUB_OFFLINE); unset it to push")
    if not get_token():
        raise ConfigError("no token for the hub: log in by `hf auth login`, or set HF_TOKEN")
    from elrea.reporting.hub_folder import write_pushed

    with TemporaryDirectory() as work:
        place = Path(work) / "ensemble"
        place.mkdir()
        write_pushed(place, folder, facts, given.repo, given.backbone_id)
        announce("uploading ...")
        commit = _upload(given, place)
    print(f"{given.repo}: commit {commit}")
    print(f'Ensemble.load("hub:{given.repo}", revision="{commit}") loads it')


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="elrea push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, help="folder of a run, as outputs/<day>/<time>, or the ensemble/ in it"
    )
    parser.add_argument("--repo", required=True, help="hub id to upload to, owner/name")
    parser.add_argument("--branch", help="branch to upload to (default: main)")
    parser.add_argument("--private", action="store_true", help="if it is made: only you see it")
    add_plugins(parser)
    parser.add_argument("--backbone-id", help="hub id of the backbone (default: the run's, if any)")
    return parser


def _listed(api: Any, repo: str, branch: str | None) -> list[str]:
    """Patterns for the members' folders that the ensemble there lists; none if it lists them in no known form."""
    if ENSEMBLE not in api.list_repo_files(repo, revision=branch):
        return []
    try:
        facts = read_json(Path(api.hf_hub_download(repo, ENSEMBLE, revision=branch)))
        members = [name for name in facts["members"] if isinstance(name, str) and name]
    except (StoreError, KeyError, TypeError):
        return []
    return [f"{escape(name)}/*" for name in members if "/" not in name]


def _upload(given: argparse.Namespace, place: Path) -> str:
    """Uploads a folder; returns the commit.

    Raises:
        ConfigError: The repository holds something else.
        NotHere: The hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api: Any = HfApi()
    try:
        api.create_repo(given.repo, private=given.private or None, exist_ok=True)
        there = api.list_repo_files(given.repo)
        if ENSEMBLE not in there and not {*there} <= {".gitattributes", "README.md"}:
            raise ConfigError(f"{given.repo}: holds something else than an ensemble; name another")
        if given.branch:
            api.create_branch(given.repo, branch=given.branch, exist_ok=True)
        stale = [*STALE, *_listed(api, given.repo, given.branch)]
        info = api.upload_folder(
            repo_id=given.repo, folder_path=place, revision=given.branch,
            commit_message="Upload an ELREA ensemble", allow_patterns=TYPES, delete_patterns=stale,
        )  # fmt: skip
    except ElreaError:
        raise
    except Exception as error:  # the HTTP client raises classes of its own
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        what = lines[0][:200] if lines else type(error).__name__
        raise NotHere(f"{given.repo}: the hub says: {what}") from error
    return str(info.oid)


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
