"""Merges LoRA adapters into one by fixed weights: an ensemble's, or PEFT folders from anywhere.

    elrea merge outputs/<day>/<time> --out merged
    elrea merge outputs/<day>/<time> --out merged --weights base=0.2,expert-0=0.5 --rank 2
    elrea merge outputs/<day>/<time> --out merged --prompts prompts.jsonl
    elrea merge adapters/maths adapters/code --out merged --weights 0.7,0.3

The merged update is ΔW = Σ w_m s_m B_m A_m, with s = α/r or α/√r. It is exact, and its rank is
the sum of the adapters' ranks; --rank takes the nearest update of a lower rank, by an SVD. The
factors A and B are not averaged, which would be another update. An ensemble's weights are
scaled to a sum of 1; those of folders are taken as they are given. With --prompts, w is the
mean of the prompts' routing weights (a line is `{"prompt": ...}`). PEFT loads the folder that
is written.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.arguments import (
    check_arguments,
    device_of,
    ensemble_folder,
    ensemble_parser,
    load_ensemble,
)
from elrea.commands.exit import announce, one_line_errors
from elrea.commands.output_folder import check_out, publish_new
from elrea.commands.predict import add_fields, check_fields, prompts_of_file
from elrea.errors import ConfigError, StoreError
from elrea.method.ensemble.folder import ENSEMBLE, SERVED, STEERING, checked, read_facts
from elrea.models.peft_folders import config_of, is_peft
from elrea.store.files import read_json, write_text

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.method.ensemble.ensemble import Ensemble
    from elrea.method.ensemble.merging import Merged
    from elrea.models.peft_folders import PeftFolder

WHAT = """A plain LoRA of rank {rank}: ΔW = Σ w_m s_m B_m A_m over the adapters below ({how}). {warning}.

`PeftModel.from_pretrained(backbone, folder)` loads it.

| {kind} | w |
|---|---|
{rows}

w: {source}."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process.

    Raises:
        ElreaError: An argument, the ensemble, a folder or a prompt cannot be used.
    """
    given = _parser().parse_args(argv)
    check_fields(given)
    check_out(given.out, [path for path in given.run if is_peft(path)])
    if len(given.run) > 1 or is_peft(given.run[0]):
        _merge_folders(given)
        return
    (given.run,) = given.run
    folder, prompts = ensemble_folder(given.run), []
    if given.top_k is not None and given.prompts is None:
        raise ConfigError("--top-k changes how prompts are routed; give --prompts too")
    if given.prompts:
        prompts = [prompt for _, prompt in prompts_of_file(given, check_arguments(given))]
    device = device_of(given)
    members = members_of(folder)
    weights = parse_weights(given.weights, members, read_facts(folder))
    check_rank(given.rank, [folder / name for name, weight in weights.items() if weight])
    if given.prompts:
        weights = mean_weights(load_ensemble(given), prompts)
        source = f"mean routing weights of the prompts in {given.prompts.name}, over their sum"
    else:
        announce("loading the adapters ...")
        source = "alike" if given.weights == "uniform" else "given by hand, over their sum"
        device.apply()
    merge(folder, given.out, weights, given.rank, source)


def _parser() -> argparse.ArgumentParser:
    parser = ensemble_parser("merge", __doc__, generates=False, folders=True)
    parser.add_argument("--out", type=Path, required=True, help="PEFT folder to write")
    weighing = parser.add_mutually_exclusive_group()
    weighing.add_argument(
        "--weights", default="uniform",
        help="uniform; weights as base=0.2,expert-0=0.5, where others get 0; or, for folders, numbers in their order "
        "as --weights=0.7,-0.3 (default: uniform)",
    )  # fmt: skip
    weighing.add_argument(
        "--prompts", type=Path,
        help="file of prompts, in any format of data=jsonl; weigh by their mean route (default: --weights)",
    )  # fmt: skip
    add_fields(parser)
    parser.add_argument(
        "--rank", type=int, help="reduce the merged adapter to this rank (default: exact sum)"
    )
    return parser


def merge(
    folder: Path, out: Path, weights: Mapping[str, float], rank: int | None, source: str
) -> None:
    """Writes the merged adapter of an ensemble, whole or not at all, and prints the members' weights.

    Args:
        folder: Folder of the ensemble, already verified.
        out: Folder to write; it must not exist.
        weights: w by member's name, 0 or more and not all 0.
        rank: Rank of the nearest sum; None: the exact sum.
        source: Where the weights come from, for the card.

    Raises:
        ElreaError: The rank does not fit, or a file cannot be read or written.
    """
    from elrea.method.ensemble.merging import merged
    from elrea.reporting.model_card import Model, about_run, configuration

    shares, facts = normalised(weights), read_facts(folder)
    found = merged(read_members(folder, shares), shares, rank)
    model = Model.of(found.adapter.backbone, found.adapter.revision, facts["backbone"]["name"])
    sections = {
        "Configuration": configuration(found.adapter.lora, facts),
        "The ensemble": about_run(folder),
    }
    _write(out, found, shares, "member", source, model, sections)
    print(summed(shares))


def normalised(weights: Mapping[str, float]) -> dict[str, float]:
    """λ = w/Σw."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def summed(shares: Mapping[str, float]) -> str:
    """One line: which members are in the sum, and which are not."""
    names = [name for name, share in shares.items() if share]
    out = [name for name in shares if name not in names]
    line = f"the sum of {', '.join(names)}"
    return f"{line}; left out, with weight 0: {', '.join(out)}" if out else line


def read_members(folder: Path, names: Mapping[str, Any]) -> dict[str, PeftFolder]:
    """The adapters of an ensemble's members, by name."""
    from elrea.models.peft_folders import read_folder

    return {name: read_folder(folder / name) for name in names}


def _merge_folders(given: argparse.Namespace) -> None:
    """Merges PEFT folders, whoever made them."""
    for option in ("prompts", "top_k"):
        if getattr(given, option) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')}: routes prompts, which needs the folder of one run, not adapters"
            )
    device, paths = device_of(given), named(given.run)
    configs = {name: config_of(path) for name, path in paths.items()}
    weights = folder_weights(given.weights, list(paths))
    places = {c.get("base_model_name_or_path") or "" for c in configs.values()} - {""}
    if given.backbone is None and len(places) > 1:
        raise ConfigError(
            f"the folders name different backbones ({', '.join(sorted(places))}); if they are one model, give its "
            "place as --backbone"
        )
    if not given.rank or not any(config.get("rank_pattern") for config in configs.values()):
        check_rank(given.rank, [paths[name] for name, weight in weights.items() if weight])
    announce("loading the adapters ...")
    device.apply()

    from dataclasses import replace

    from elrea.method.ensemble.merging import merged
    from elrea.models.peft_folders import read_folder
    from elrea.reporting.model_card import Model, configuration

    found = merged({name: read_folder(path) for name, path in paths.items()}, weights, given.rank)
    if given.backbone is not None:
        adapter = replace(found.adapter, backbone=given.backbone, revision=None)
        found = replace(found, adapter=adapter)
    model = Model.of(found.adapter.backbone, found.adapter.revision)
    source = "the mean" if given.weights == "uniform" else "given by hand"
    sections = {"Configuration": configuration(found.adapter.lora, {})}
    _write(given.out, found, weights, "folder", source, model, sections)


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Folders by their own names where these differ, else by their paths as they were typed.

    Raises:
        ConfigError: A folder is given twice.
    """
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise ConfigError(f"{path}: given twice; give it once, with the sum of its weights")
    short = [place.name for place in resolved]
    names = short if len(set(short)) == len(short) else list(map(str, paths))
    return dict(zip(names, paths, strict=True))


def folder_weights(text: str, names: list[str]) -> dict[str, float]:
    """Every folder's weight, from `uniform` (the mean), numbers in the folders' order, or `name=number`.

    Raises:
        ConfigError: The text is malformed, or all weights are 0.
    """
    if text == "uniform":
        return dict.fromkeys(names, 1 / len(names))
    parts = [part.strip() for part in text.split(",")]
    pairs = [part.rpartition("=")[::2] for part in parts]
    if not any(name for name, _ in pairs):
        if len(parts) != len(names):
            raise ConfigError(f"--weights: {len(parts)} numbers for {len(names)} folders")
        pairs = list(zip(names, parts, strict=True))
    weights: dict[str, float] = {}
    for name, number in ((name.strip(), number) for name, number in pairs):
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise ConfigError(f"--weights: {number.strip()!r} is not a finite number")
        if name not in names:
            raise ConfigError(f"--weights: no folder {name!r} (there is: {', '.join(names)})")
        if name in weights:
            raise ConfigError(f"--weights: the folder {name!r} appears twice")
        weights[name] = weight
    if not any(weights.values()):
        raise ConfigError("--weights: all are 0; give a folder another weight")
    return {name: weights.get(name, 0.0) for name in names}


def _write(
    out: Path, found: Merged, weights: Mapping[str, float], kind: str, source: str, model: Any,
    sections: Mapping[str, str],
) -> None:  # fmt: skip
    """Writes the folder with its card, and prints what was merged."""
    from elrea.reporting.model_card import README, card

    rows = "\n".join(f"| {name} | {weight:.4f} |" for name, weight in weights.items())
    rank = found.adapter.lora.r
    what = WHAT.format(
        rank=rank, how=found.how, warning=found.warning, kind=kind, rows=rows, source=source
    )

    def write(aside: Path) -> None:
        found.adapter.save(aside)
        text = card(f"Merged adapter on {model.name}", what, model, sections=sections)
        write_text(aside / README, text)

    publish_new(out, write)
    width = max(len(kind), *map(len, weights))
    print(f"{kind:{width}}  weight")
    for name, weight in weights.items():
        print(f"{name:{width}}  {weight:6.4f}")
    print(f"rank {rank}" + (f" of {found.exact}" if found.kept is not None else "")
          + ("; " if found.kept is not None else ", ") + found.how)  # fmt: skip
    print(found.warning)
    print(f"{out} is a plain PEFT folder")


def members_of(folder: Path) -> list[str]:
    """Names of the members that an ensemble mixes, the base adapter first.

    Where clusters steer one adapter, the base adapter is there for the routing alone and no member.

    Raises:
        StoreError: There is no ensemble in the folder, or it is damaged.
    """
    facts = checked(folder)
    names = [str(name) for name in facts.get("members", ())]
    if not names or not all(f"{name}/adapter_config.json" in facts["files"] for name in names):
        raise StoreError(f"{folder / ENSEMBLE}: does not list its members' files")
    return names[1:] if STEERING in facts else names


def check_rank(rank: int | None, folders: Sequence[Path]) -> None:
    """Checks --rank against the rank of the exact sum, which is the sum of these adapters' ranks.

    Raises:
        ConfigError: The rank is below 1 or above that.
    """
    if rank is None:
        return
    exact = 0
    for folder in folders:
        path = folder / "adapter_config.json"
        config = read_json(path)
        if not isinstance(config, dict) or type(config.get("r")) is not int:
            raise StoreError(f"{path}: has no rank r")
        exact += config["r"]
    if not 1 <= rank <= exact:
        raise ConfigError(f"--rank {rank}: must be 1 to {exact}, the rank of the exact sum")


def parse_weights(text: str, members: list[str], facts: Mapping[str, Any]) -> dict[str, float]:
    """Every member's weight from `uniform` or `base=0.2,expert-0=0.5`; a member that is not named has 0.

    Args:
        text: As it was typed.
        members: All members that may be named.
        facts: Contents of `ensemble.json`; by `uniform`, members that its strategy never answers by have 0.

    Raises:
        ConfigError: The text is malformed; a member is unknown or named twice; a weight is negative or not finite; or
            the sum is 0 or not finite.
    """
    if text == "uniform":
        used = members
        if SERVED in facts:  # needs torch
            from elrea.method.ensemble.ensemble_folder import used_members

            used = used_members(facts)
        return {name: float(name in used) for name in members}
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise ConfigError(
                f"--weights: {part.strip()!r}: must be member=number with a number of 0 or more, or uniform"
            )
        if name not in members:
            raise ConfigError(f"--weights: no member {name!r} (there is: {', '.join(members)})")
        if name in weights:
            raise ConfigError(f"--weights: the member {name!r} appears twice")
        weights[name] = weight
    total = sum(weights.values())
    if not 0 < total < math.inf:
        raise ConfigError(
            "--weights: their sum is 0; give a member a weight above 0"
            if total == 0
            else "--weights: their sum is not finite; make them smaller"
        )
    return {name: weights.get(name, 0.0) for name in members}


def mean_weights(ensemble: Ensemble, prompts: Sequence[Example]) -> dict[str, float]:
    """Each member's routing weight, as the mean over prompts.

    Raises:
        DataError: A prompt is too long.
    """
    routes = ensemble.route(prompts)
    return {
        name: math.fsum(route.weights[name] for route in routes) / len(routes)
        for name in ensemble.members
    }


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
