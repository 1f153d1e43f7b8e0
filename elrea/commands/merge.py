"""Makes one plain LoRA adapter of an ensemble: the members' updates summed by fixed weights, without routing.

    python -m elrea.merge outputs/<day>/<time> --out merged
    python -m elrea.merge outputs/<day>/<time> --out merged --weights base=0.2,expert-0=0.5 --rank 2
    python -m elrea.merge outputs/<day>/<time> --out merged --prompts prompts.jsonl

ΔW = Σ λ_m (α/r) B_m A_m with λ = w/Σw, exactly (its rank is the sum of the members'), or nearest by --rank. With
prompts (a line is `{"prompt": ...}`), w is the mean of their routing weights. PEFT alone loads the folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from elrea.commands.chat import command
from elrea.commands.messages import told
from elrea.errors import ConfigError, DataError, StoreError

CARD = """---
library_name: peft
base_model: {backbone}
---
# One adapter of an ELREA ensemble on {backbone}

A plain LoRA of rank {rank}: ΔW = Σ λ_m (α/r) B_m A_m over the ensemble's members, {how}.
Every prompt gets these weights, where the ensemble itself would route.

`PeftModel.from_pretrained(backbone, folder)` loads it.

| member | λ |
|---|---|
{rows}

λ: {source}.
"""


def main() -> None:
    parser = command("merge", __doc__, writes=False)
    parser.add_argument("--out", type=Path, required=True, help="the PEFT folder to make")
    weighing = parser.add_mutually_exclusive_group()
    weighing.add_argument(
        "--weights", default="uniform", help="uniform (default), or as base=0.2,expert-0=0.5"
    )
    weighing.add_argument("--prompts", type=Path, help="JSON lines of prompts to weigh by")
    parser.add_argument("--rank", type=int, help="reduce to this rank (exact)")
    given = parser.parse_args()
    if given.out.exists():
        raise ConfigError(f"{given.out}: is there already; name another folder")
    if given.top_k is not None and given.prompts is None:
        raise ConfigError("--top-k: says how prompts are routed; give --prompts too")
    folder = given.run / "ensemble" if (given.run / "ensemble").is_dir() else given.run
    if given.prompts:
        weights = mean_weights(given.run, given.backbone, given.top_k, given.prompts)
        source = f"mean routing weights of the prompts in {given.prompts.name}, over their sum"
    else:
        weights = parse_weights(given.weights, members_of(folder))
        source = "alike" if given.weights == "uniform" else "given by hand"
    merge(folder, given.out, weights, given.rank, source)


def merge(
    folder: Path, out: Path, weights: Mapping[str, float], rank: int | None, source: str
) -> None:
    """Writes the merged adapter, whole or not at all, and prints what it is made of.

    Args:
        folder: An ensemble's, whose files were checked.
        out: Where to; not there yet.
        weights: w of members by name, 0 or more and not all 0.
        rank: R of a nearest sum; None: the exact one.
        source: Where the weights come from, for the card.

    Raises:
        ElreaError: The rank does not fit, or a file cannot be read or written.
    """
    from elrea.method.ensemble.weighted_sum import reduced, weighted_sum
    from elrea.models import lora as lora_files
    from elrea.store.files import publish, read_json, write_text

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
    rows = "\n".join(f"| {name} | {share:.4f} |" for name, share in shares.items())

    def write(aside: Path) -> None:
        lora_files.save(aside, tensors, lora, backbone, transposed=transposed)
        card = CARD.format(backbone=backbone, rank=lora.r, how=how, rows=rows, source=source)
        write_text(aside / "README.md", card)

    if (aside := out.with_name(f"{out.name}.partial")).exists():
        raise DataError(f"{aside} is in the way, of a stopped merge or your own; remove it")
    publish(out, write)
    width = max(map(len, shares))
    print(f"{'member':{width}}  weight")
    for name, share in shares.items():
        print(f"{name:{width}}  {share:6.4f}")
    print(f"rank {lora.r}" + (f" of {exact}; {how.partition(': ')[2]}" if rank else ", exact"))
    print(f"{out} is a plain PEFT folder")


def members_of(folder: Path) -> list[str]:
    """Names of an ensemble's members, the base adapter first.

    Raises:
        StoreError: No ensemble's folder, or not whole.
    """
    from elrea.method.ensemble.saved import checked

    facts = checked(folder)
    names = [str(name) for name in facts.get("members", ())]
    if not names or not all(f"{name}/adapter_config.json" in facts["files"] for name in names):
        raise StoreError(f"{folder / 'ensemble.json'}: does not list its members' files")
    return names


def parse_weights(text: str, members: list[str]) -> dict[str, float]:
    """Every member's weight from `uniform` or `base=0.2,expert-0=0.5`; who is not named weighs 0.

    Raises:
        ConfigError: Malformed, an unknown or repeated member, a weight below 0, a sum of 0, or either not finite.
    """
    if text == "uniform":
        return dict.fromkeys(members, 1.0)
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise ConfigError(
                f"--weights: {part.strip()!r}: wants member=number, the number 0 or more; or uniform"
            )
        if name not in members:
            raise ConfigError(f"--weights: no member {name!r} (there is: {', '.join(members)})")
        if name in found:
            raise ConfigError(f"--weights: {name} stands twice")
        found[name] = weight
    total = sum(found.values())
    if not 0 < total < math.inf:
        raise ConfigError(
            "--weights: they sum to 0; let one member weigh something"
            if total == 0
            else "--weights: their sum is not finite; make them smaller"
        )
    return {name: found.get(name, 0.0) for name in members}


def mean_weights(
    run: Path, backbone: str | None, top_k: int | None, path: Path
) -> dict[str, float]:
    """Mean over a file's prompts of each member's routing weight.

    Raises:
        ElreaError: The ensemble, its backbone or the prompts cannot be used.
    """
    from elrea.commands.predict import read_prompts
    from elrea.pipeline.assemble import ensemble_of

    prompts = [prompt for _, prompt in read_prompts(path)]
    ensemble = ensemble_of(run, backbone, top_k=top_k)
    routes = ensemble.route(prompts)
    return {
        name: math.fsum(route.weights[name] for route in routes) / len(routes)
        for name in ensemble.members
    }


if __name__ == "__main__":
    with told():
        main()
