"""Makes a W&B dashboard of a project's runs, or of one sweep: accuracy against C, cost, clusters, routing.

    python -m elrea.tracking.dashboard --group 2026-11-24/09-30-00
    python -m elrea.tracking.dashboard --project mine --against data.conflict --strategies elrea,uniform
    python -m elrea.tracking.dashboard --out dashboard.json

Runs have to be sent first (`wandb sync`, or tracking.mode=online); a sweep's group is its folder below multirun/.
Saving needs a W&B key (`wandb login`, or WANDB_API_KEY); --out writes the dashboard's spec without key or network.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.messages import told
from elrea.errors import ConfigError
from elrea.store.files import write_json

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

STRATEGIES = "base,elrea,elrea_top1,random_cluster,uniform"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m elrea.tracking.dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--project", default="elrea", help="as tracking.project (elrea)")
    parser.add_argument("--entity", help="as tracking.entity (the account's default)")
    parser.add_argument("--group", help="one sweep alone, <day>/<time> (all runs)")
    parser.add_argument(
        "--strategies", default=STRATEGIES, help=f"that have panels of their own ({STRATEGIES})"
    )
    parser.add_argument(
        "--against", default="clustering.k", help="config key that the sweep varies (clustering.k)"
    )
    parser.add_argument("--out", type=Path, help="write the spec here as JSON, and send nothing")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds W&B may take (60)")
    given = parser.parse_args()
    if not given.timeout > 0:
        raise ConfigError(f"--timeout {given.timeout:g}: give seconds above 0")
    given.strategies = [name.strip() for name in given.strategies.split(",") if name.strip()]
    if not given.strategies:
        raise ConfigError("--strategies: name at least one, as elrea,uniform")
    if given.out and (given.out.is_dir() or not given.out.name):
        raise ConfigError(f"--out {given.out}: is a folder; name a file")
    if given.out:
        write_json(given.out, spec(_workspace(given, given.entity or "")))
        print(f"The dashboard's spec is in {given.out}")
    else:
        print(f"The dashboard is at {_save(given)}")


def spec(dashboard: Workspace) -> dict[str, Any]:
    """What W&B would be sent, as plain JSON."""
    found: dict[str, Any] = json.loads(
        dashboard._to_model().model_dump_json(by_alias=True, exclude_none=True)
    )
    return found


def _workspace(given: argparse.Namespace, entity: str) -> Workspace:
    from elrea.reporting.wandb.panels import workspace

    _quiet()
    try:
        return workspace(entity, given.project, given.group, given.strategies, given.against)
    except ImportError as error:
        raise ConfigError(
            f"the dashboard needs wandb-workspaces ({error}): pip install 'elrea[dashboard]'"
        ) from error


def _save(given: argparse.Namespace) -> str:
    """Sends the dashboard within the time limit.

    Returns:
        Its address.

    Raises:
        ConfigError: There is no key, no network, or W&B refuses.
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

    _workspace(given, "")  # a missing extra is said before a missing key
    try:
        return within(given.timeout, send)
    except ConfigError:
        raise
    except Exception as error:
        reason = (public(str(error)).strip().splitlines() or [""])[0][:100]
        raise ConfigError(
            f"W&B did not take the dashboard ({type(error).__name__}: {reason}); look at network, key, --entity and "
            f"--project, or write the spec with --out dashboard.json"
        ) from error


def _quiet() -> None:
    from elrea.reporting.wandb.opening import prepare

    os.environ.setdefault("WANDB_SILENT", "true")
    prepare()


if __name__ == "__main__":
    with told():
        main()
