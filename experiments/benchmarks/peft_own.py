"""Compares merging and swapping of adapters with PEFT's own: are they the same, and which is faster?

    make bench-peft

On a Llama of the shape of SmolLM2-135M, cut to a few layers, with eight adapters of rank 8 on all linear layers, all
with random weights. `cat` is their weighted sum, `svd` its nearest sum of rank 8, `swap` puts the weights of another
adapter in the place of the loaded one's. Seconds of CPU. A batch with mixed adapters is in `make bench-inference`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from time import process_time
from typing import Any

import peft
import torch
from peft.utils.hotswap import hotswap_adapter
from transformers import LlamaConfig, LlamaForCausalLM

from elrea.method.ensemble.weighted_sum import reduced, weighted_sum
from elrea.models import lora
from elrea.models.adapter_shape import Lora
from elrea.store.files import write_json
from experiments.benchmarks.measuring import machine, median_range, ratio, rounds

RANK, COUNT = 8, 8
Tensors = Mapping[str, torch.Tensor]


def setting(folder: Path, layers: int) -> tuple[peft.PeftModel, list[Path]]:
    """PEFT's model with all adapters, by the names m0, m1, ..., and their folders."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
        num_hidden_layers=layers, vocab_size=1024,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    shape, paths = Lora(r=RANK, dropout=0.0), []
    ours = lora.attach(model, shape, 0)
    for number in range(COUNT):
        drawn = {name: torch.randn_like(each) * 0.02 for name, each in lora.state(ours).items()}
        paths.append(folder / f"m{number}")
        lora.save(paths[-1], drawn, shape, "random")
    plain = lora.detach(ours)
    theirs = peft.PeftModel.from_pretrained(plain, str(paths[0]), adapter_name="m0")
    for number, path in enumerate(paths[1:], 1):
        theirs.load_adapter(str(path), f"m{number}")
    return theirs, paths


def updates(tensors: Tensors, scale: float) -> dict[str, torch.Tensor]:
    """ΔW of every layer."""
    return {
        name.rpartition(".lora_A")[0]: scale * tensors[name.replace("lora_A", "lora_B")] @ each
        for name, each in tensors.items()
        if ".lora_A." in name
    }


def theirs_updates(model: peft.PeftModel, name: str) -> dict[str, torch.Tensor]:
    """ΔW of every layer of an adapter that PEFT holds."""
    state = peft.get_peft_model_state_dict(model, adapter_name=name)
    shape: Any = model.peft_config[name]
    return updates(state, shape.lora_alpha / shape.r)


def differs(one: Tensors, two: Tensors) -> float:
    """‖one - two‖ / ‖one‖ over all layers."""
    off = sum(float((one[name] - two[name]).square().sum()) for name in one)
    return (off / sum(float(each.square().sum()) for each in one.values())) ** 0.5


def merging(model: peft.PeftModel, paths: list[Path], count: int) -> dict[str, Any]:
    """`cat` and `svd`: relative difference of the updates, and PEFT's seconds over ours."""
    names, weights = [f"m{n}" for n in range(COUNT)], [1.0 / (n + 1) for n in range(COUNT)]
    adapters, found = [lora.load(path) for path in paths], {}
    for kind in ("cat", "svd"):
        made: dict[str, Any] = {}

        def ours(kind: str = kind, made: dict[str, Any] = made) -> None:
            summed = weighted_sum(adapters, weights)
            made["ours"] = summed if kind == "cat" else reduced(summed, RANK)[0]

        def theirs(kind: str = kind) -> None:
            if "merged" in model.peft_config:
                model.delete_adapter("merged")
            model.add_weighted_adapter(
                names,
                weights,
                "merged",
                combination_type=kind,
                svd_rank=RANK,
                svd_full_matrices=False,
            )

        seconds = rounds({"ours": ours, "peft": theirs}, count, clock=process_time)
        tensors, shape = made["ours"]
        found[kind] = {
            "differs": differs(updates(tensors, shape.scale), theirs_updates(model, "merged")),
            "peft_over_ours": ratio(seconds["peft"], seconds["ours"]),
        }
    model.delete_adapter("merged")
    return found


def swapping(model: peft.PeftModel, paths: list[Path], count: int) -> dict[str, Any]:
    """`swap`: PEFT's `hotswap_adapter` and `load_adapter` over ours, from files both."""
    for number in range(1, COUNT):
        model.delete_adapter(f"m{number}")
    model.set_adapter("m0")
    ids, turn = torch.arange(32)[None], iter(range(10**9))

    def next_path() -> Path:
        return paths[next(turn) % COUNT]

    def ours() -> None:
        tensors, _ = lora.load(next_path())
        lora.set_state(model, tensors)

    def swap() -> None:
        hotswap_adapter(model, str(next_path()), adapter_name="m0")

    def load() -> None:
        model.load_adapter(str(next_path()), "other")
        model.delete_adapter("other")

    logits = []
    for way, before in ((ours, 1), (swap, 2)):
        lora.set_state(
            model, lora.load(paths[before])[0]
        )  # else a swap that does nothing would pass
        turn = iter([3])
        way()
        with torch.no_grad():
            logits.append(model(input_ids=ids).logits)
    turn = iter(range(10**9))
    seconds = rounds({"ours": ours, "hotswap": swap, "load": load}, count, clock=process_time)
    return {
        "differs": float((logits[0] - logits[1]).abs().max()),
        "hotswap_over_ours": ratio(seconds["hotswap"], seconds["ours"]),
        "load_over_ours": ratio(seconds["load"], seconds["ours"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "peft_own.json")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # PEFT asks the hub for the random model's files
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model, paths = setting(Path(folder), given.layers)
        found = merging(model, paths, given.rounds)
        found["swap"] = swapping(model, paths, given.rounds)
    for name, row in found.items():
        ratios = {key: median_range(row[key]) for key in row if key != "differs"}
        print(f"{name}: differs by {row['differs']:.1e}; {json.dumps(ratios)}")
    facts = {"layers": given.layers, "rank": RANK, "adapters": COUNT, "rounds": given.rounds}
    found["machine"] = machine(
        peft=peft.__version__, torch=torch.__version__, threads=torch.get_num_threads()
    )
    write_json(given.out, {**found, **facts})


if __name__ == "__main__":
    main()
