"""Merges an ensemble's adapters into one plain LoRA adapter by fixed weights, without routing.

    elrea merge outputs/<day>/<time> --out merged
    elrea merge outputs/<day>/<time> --out merged --weights base=0.2,expert-0=0.5 --rank 2
    elrea merge outputs/<day>/<time> --out merged --prompts prompts.jsonl

The merged update is ΔW = Σ λ_m (α/r) B_m A_m with λ = w/Σw. It is exact, and its rank is the sum of
the members' ranks; --rank takes the nearest update of a lower rank. With --prompts, w is the mean
of the prompts' routing weights (a line is `{"prompt": ...}`). PEFT loads the folder.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from elrea.commands.arguments import (
    check_arguments,
    device_of,
    ensemble_folder,
    ensemble_parser,
    load_ensemble,
)
from elrea.commands.messages import announce, one_line_errors
from elrea.commands.predict import read_prompts
from elrea.errors import ConfigError, DataError, StoreError
from elrea.method.ensemble.folder import STEERING, checked, read_facts
from elrea.method.ensemble.places import point
from elrea.store.files import publish, read_json, write_text

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.method.ensemble.ensemble import Ensemble

CARD = """---
library_name: peft
base_model: {backbone}
---
# One adapter of an ELREA ensemble on {backbone}

A plain LoRA of rank {rank}: ΔW = Σ λ_m (α/r) B_m A_m over the ensemble's members, {how}.
Every prompt gets these weights; the ensemble itself would route each prompt.

`PeftModel.from_pretrained(backbone, folder)` loads it.

| member | λ |
|---|---|
{rows}

λ: {source}.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process.

    Raises:
        ElreaError: An argument, the ensemble or a prompt cannot be used.
    """
    given = _parser().parse_args(argv)
    folder, prompts = ensemble_folder(given.run), []
    if given.out.exists():
        raise ConfigError(f"{given.out}: exists already; name another folder")
    if given.top_k is not None and given.prompts is None:
        raise ConfigError("--top-k changes how prompts are routed; give --prompts too")
    if given.prompts:
        check_arguments(given)
        prompts = [prompt for _, prompt in read_prompts(given.prompts)]
    device = device_of(given)
    members = members_of(folder)
    weights = parse_weights(given.weights, members)
    check_rank(given.rank, folder, [name for name, weight in weights.items() if weight])
    if given.prompts:
        weights = mean_weights(load_ensemble(given), prompts)
        source = f"mean routing weights of the prompts in {given.prompts.name}, over their sum"
    else:
        announce("loading the adapters ...")
        source = "alike" if given.weights == "uniform" else "given by hand"
        device.apply()
    merge(folder, given.out, weights, given.rank, source)


def _parser() -> argparse.ArgumentParser:
    parser = ensemble_parser("merge", __doc__, generates=False)
    parser.add_argument("--out", type=Path, required=True, help="PEFT folder to write")
    weighing = parser.add_mutually_exclusive_group()
    weighing.add_argument(
        "--weights", default="uniform",
        help="uniform, or weights as base=0.2,expert-0=0.5; other members get 0 (default: uniform)",
    )  # fmt: skip
    weighing.add_argument(
        "--prompts", type=Path,
        help="file of prompts, as JSON lines; weigh by their mean route (default: --weights)",
    )  # fmt: skip
    parser.add_argument(
        "--rank", type=int, help="reduce the merged adapter to this rank (default: exact sum)"
    )
    return parser


def merge(
    folder: Path, out: Path, weights: Mapping[str, float], rank: int | None, source: str
) -> None:
    """Writes the merged adapter, whole or not at all, and prints the members' weights.

    Args:
        folder: Folder of the ensemble, already verified.
        out: Folder to write; it must not exist.
        weights: w by member's name, 0 or more and not all 0.
        rank: Rank of the nearest sum; None: the exact sum.
        source: Where the weights come from, for the card.

    Raises:
        ElreaError: The rank does not fit, or a file cannot be read or written.
    """
    from elrea.method.ensemble.weighted_sum import reduced, weighted_sum
    from elrea.models import lora as lora_files

    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    adapter = weighted_sum([lora_files.load(folder / name) for name in shares], [*shares.values()])
    exact, how = adapter[1].r, "exactly"
    if rank is not None:
        adapter, kept = reduced(adapter, rank)
        how = f"the nearest of that rank: it keeps {100 * kept:.2f} % of the sum's squared norm"
    tensors, lora = adapter
    member = read_json(folder / next(iter(shares)) / lora_files.CONFIG)
    backbone, transposed = str(member["base_model_name_or_path"]), bool(member["fan_in_fan_out"])
    shown = read_facts(folder)["backbone"]["name"]
    rows = "\n".join(f"| {name} | {share:.4f} |" for name, share in shares.items())

    def write(aside: Path) -> None:
        lora_files.save(aside, tensors, lora, backbone, transposed=transposed)
        point(aside, {"absolute": backbone, "commit": member.get("revision")})
        card = CARD.format(backbone=shown, rank=lora.r, how=how, rows=rows, source=source)
        write_text(aside / "README.md", card)

    if (aside := out.with_name(f"{out.name}.partial")).exists():
        raise DataError(f"{aside} exists already, perhaps from an interrupted merge; remove it")
    publish(out, write)
    width = max(map(len, shares))
    print(f"{'member':{width}}  weight")
    for name, share in shares.items():
        print(f"{name:{width}}  {share:6.4f}")
    print(f"rank {lora.r}" + (f" of {exact}; {how.partition(': ')[2]}" if rank else ", exact"))
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
        raise StoreError(f"{folder / 'ensemble.json'}: does not list its members' files")
    return names[1:] if STEERING in facts else names


def check_rank(rank: int | None, folder: Path, names: Sequence[str]) -> None:
    """Checks --rank against the rank of the exact sum, which is the sum of these members' ranks.

    Raises:
        ConfigError: The rank is below 1 or above that.
    """
    if rank is None:
        return
    exact = 0
    for name in names:
        path = folder / name / "adapter_config.json"
        config = read_json(path)
        if not isinstance(config, dict) or type(config.get("r")) is not int:
            raise StoreError(f"{path}: has no rank r")
        exact += config["r"]
    if not 1 <= rank <= exact:
        raise ConfigError(f"--rank {rank}: must be 1 to {exact}, the rank of the exact sum")


def parse_weights(text: str, members: list[str]) -> dict[str, float]:
    """Every member's weight from `uniform` or `base=0.2,expert-0=0.5`; a member that is not named has 0.

    Raises:
        ConfigError: The text is malformed; a member is unknown or named twice; a weight is negative or not finite; or
            the sum is 0 or not finite.
    """
    if text == "uniform":
        return dict.fromkeys(members, 1.0)
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
