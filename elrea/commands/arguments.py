"""The arguments that the commands on a finished ensemble share, and the ensemble that they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.exit import announce
from elrea.commands.parser import Parser
from elrea.errors import ConfigError
from elrea.method.ensemble.folder import read_facts
from elrea.method.ensemble.places import find_backbone
from elrea.plugins import allow

if TYPE_CHECKING:
    from elrea.method.ensemble.ensemble import Ensemble
    from elrea.models.device import Device


def ensemble_parser(
    command: str, description: str | None, *, generates: bool = True, folders: bool = False
) -> argparse.ArgumentParser:
    """A parser of `elrea <command>` with the arguments of every command on a finished ensemble.

    Args:
        command: Its name.
        description: The beginning of `--help`.
        generates: Whether the command generates text, so that it takes the settings of decoding.
        folders: Whether it takes PEFT folders too, one or several; `run` is then a list.
    """
    parser = Parser(
        prog=f"elrea {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = "folder of a run, as outputs/<day>/<time>, or the ensemble/ in it"
    if folders:
        parser.add_argument(
            "run", type=Path, nargs="+", help=f"{what}; or PEFT folders, from anywhere"
        )
    else:
        parser.add_argument("run", type=Path, help=what)
    parser.add_argument(
        "--backbone",
        help="folder or hub id of the backbone (default: found from where the run had it)",
    )
    add_threads(parser)
    parser.add_argument(
        "--trust-remote-code", action="store_true",
        help="run the code that comes with the backbone, if the run did (default: no)",
    )  # fmt: skip
    add_plugins(parser)
    parser.add_argument(
        "--top-k",
        type=int,
        help="use only the k experts nearest to a prompt; C or more: all (default: as the run, else all)",
    )
    if not generates:
        return parser
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, help="longest answer, in tokens (default: 128)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0,
        help="of sampling; 0 always takes the likeliest token (default: 0)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of sampling (default: 0)")
    return parser


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Adds `--plugins`, which allows what it names while the words are read."""
    parser.add_argument(
        "--plugins", type=_allowed, metavar="NAME[,NAME]",
        help="packages outside elrea whose parts the run has (default: those that are installed as plugins)",
    )  # fmt: skip


def _allowed(names: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in names.split(","))
    allow(found)
    return found


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Adds `--threads`, for `device_of`."""
    parser.add_argument(
        "--threads", type=int,
        help="CPU threads (default: OMP_NUM_THREADS, else 1 or all cores, whichever is faster now)",
    )  # fmt: skip


def device_of(given: argparse.Namespace) -> Device:
    """The device with the given number of threads.

    Raises:
        ConfigError: The number is out of range.
    """
    from elrea.models.device import MOST_THREADS, Device

    try:
        return Device(threads=given.threads)
    except ValueError as error:
        raise ConfigError(f"--threads {given.threads}: must be 1 to {MOST_THREADS}") from error


def ensemble_folder(run: Path) -> Path:
    """The folder of the ensemble: `ensemble/` of a run, or the given folder itself."""
    inside = run / "ensemble"
    return inside if inside.is_dir() else run


def check_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """Checks what can be checked without importing torch or loading a model.

    Returns:
        The content of `ensemble.json`.

    Raises:
        ConfigError: A value is out of range, or the run's config cannot be read.
        StoreError: There is no ensemble, or it is damaged.
        BackboneError: The backbone's folder is missing.
    """
    if given.top_k is not None and given.top_k < 1:
        raise ConfigError(f"--top-k {given.top_k}: must be at least 1")
    device_of(given)
    facts = read_facts(ensemble_folder(given.run))
    find_backbone(
        facts, ensemble_folder(given.run), given.backbone, trust_remote_code=given.trust_remote_code, verify=False
    )  # fmt: skip
    return facts


def load_ensemble(given: argparse.Namespace) -> Ensemble:
    """The ensemble that the arguments name, on its backbone.

    Raises:
        ElreaError: As `check_arguments`; or a file is damaged, or the backbone cannot be loaded or is another one.
    """
    check_arguments(given)
    announce("loading the ensemble and its backbone ...")
    from elrea.pipeline.assemble import ensemble_of

    return ensemble_of(
        given.run, given.backbone, top_k=given.top_k, device=device_of(given),
        trust_remote_code=given.trust_remote_code,
    )  # fmt: skip
