"""Makes a W&B dashboard of a project's runs: accuracy, cost, clusters, routing and training.

    elrea dashboard --group 2026-11-24/09-30-00
    elrea dashboard --project mine --against data.conflict --strategies elrea,uniform
    elrea dashboard --out dashboard.json

The runs must be on W&B already (`wandb sync`, or tracking.mode=online). The group of a sweep is its
folder below multirun/. Saving the dashboard needs a W&B key (`wandb login`, or WANDB_API_KEY);
--out writes its spec to a file without key or network.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.exit import announce, one_line_errors
from elrea.commands.parser import Parser
from elrea.errors import ConfigError
from elrea.store.files import write_json

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

STRATEGIES = "base,elrea,elrea_top1,random_cluster,uniform"
"""Strategies with their own panels by default."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    given = _parser().parse_args(argv)
    if not given.timeout > 0:
        raise ConfigError(f"--timeout {given.timeout:g}: give seconds above 0")
    given.strategies = [name.strip() for name in given.strategies.split(",") if name.strip()]
    if not given.strategies:
        raise ConfigError("--strategies: name at least one, as elrea,uniform")
    if given.out and (given.out.is_dir() or not given.out.name):
        raise ConfigError(f"--out {given.out}: is a folder; name a file")
    announce("importing W&B ...")
    if given.out:
        write_json(given.out, spec(_workspace(given, given.entity or "")))
        print(f"The dashboard's spec is in {given.out}")
    else:
        print(f"The dashboard is at {_save(given)}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="elrea dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--project", default="elrea", help="W&B project, as tracking.project (default: elrea)"
    )
    parser.add_argument(
        "--entity", help="W&B entity, as tracking.entity (default: the account's own)"
    )
    parser.add_argument("--group", help="only the sweep <day>/<time> (default: all runs)")
    parser.add_argument(
        "--strategies", default=STRATEGIES,
        help=f"strategies with their own panels (default: {STRATEGIES})",
    )  # fmt: skip
    parser.add_argument(
        "--against", default="clustering.k",
        help="config key that the sweep varies (default: clustering.k)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, help="write the spec to this file as JSON (default: send it to W&B)"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="for W&B, in seconds (default: 60)"
    )
    return parser


def spec(dashboard: Workspace) -> dict[str, Any]:
    """The dashboard as plain JSON, as it is sent to W&B."""
    plain: dict[str, Any] = json.loads(
        dashboard._to_model().model_dump_json(by_alias=True, exclude_none=True)
    )
    return plain


def _workspace(given: argparse.Namespace, entity: str) -> Workspace:
    """The dashboard.

    Raises:
        ConfigError: The extra `dashboard` is not installed.
    """
    from elrea.reporting.wandb.panels import workspace

    _quiet()
    try:
        return workspace(entity, given.project, given.group, given.strategies, given.against)
    except ImportError as error:
        raise ConfigError(
            f"the dashboard needs wandb-workspaces ({error}): pip install 'elrea[dashboard]'"
        ) from error


def _save(given: argparse.Namespace) -> str:
    """Sends the dashboard to W&B and returns its address.

    Raises:
        ConfigError: There is no key or no network, the time is up, or W&B refuses.
    """
    from elrea.reporting.wandb.limits import within
    from elrea.reporting.wandb.privacy import public

    def send() -> str:
        import wandb

        if not wandb.login(prompt=False, verify=False):
            raise ConfigError(
                "no W&B key: run `wandb login` or set WANDB_API_KEY, or write the spec with --out dashboard.json"
            )
        dashboard = _workspace(given, given.entity or wandb.Api().default_entity or "")
        return str(dashboard.save().url)

    _workspace(given, "")  # so that a missing extra is reported before a missing key
    try:
        return within(given.timeout, send)
    except ConfigError:
        raise
    except Exception as error:
        reason = (public(str(error)).strip().splitlines() or [""])[0][:100]
        raise ConfigError(
            f"W&B did not take the dashboard ({type(error).__name__}: {reason}); check network, key, --entity and "
            f"--project, or write the spec with --out dashboard.json"
        ) from error


def _quiet() -> None:
    """Keeps wandb's own lines off the terminal."""
    from elrea.reporting.wandb.opening import prepare

    os.environ.setdefault("WANDB_SILENT", "true")
    prepare()


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
