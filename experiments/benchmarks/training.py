"""Measures the speed of training against transformers' Trainer with PEFT, TRL's SFTTrainer, and the bare products.

    make bench-training
    python -m experiments.benchmarks.training --models smollm2 --threads 1 --lengths lengths.jsonl

All train LoRA of rank 8 on all linear layers with the loss on the response's tokens, on the same batches, with the same
Adam and learning rates. `ours` is `train_adapter` as a stage runs it, with its checkpoint and curve; `ours, mixed` has
`backbone.dtype=mixed`; `trainer` is transformers' Trainer on PEFT's model, `trl` is TRL's SFTTrainer (extra `bench`;
left out where it is not installed). `products` are only the products of the frozen weights, forward and with the
gradient of the input, for the tokens without padding, and of the head for the tokens with loss: the floor. Before
anything is timed, the losses of the first steps are compared, and the benchmark ends if they differ by more than 1e-4.

Models: `smollm2` (random weights of SmolLM2-135M's shape), `tiny` (the built-in backbone), or a folder. Lengths are
drawn like those of short instruction data, or read from a file of JSON lines: {"prompt": 50, "response": 17}.

A round takes each way once; a ratio is of one round, and the median, least and most over rounds are shown and written
to training.json beside this file. With `--clock cpu`, seconds are the process's own on the CPU: for one thread these
are the seconds of a quiet machine, also beside other work. Takes 20 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.measuring import ratio, rounds
from experiments.benchmarks.training_setting import LENGTHS, STEP, Setting, drawn, read_lengths

HERE = Path(__file__).parent
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CHECKED = 3
"""Steps whose losses are compared."""


def check(setting: Setting) -> dict[str, float]:
    """Largest difference of each way's losses of the first steps from ours, by way.

    All responses have one length here: our loss is a mean over examples, the others' one over tokens.

    Raises:
        SystemExit: They disagree.
    """
    alike = [(prompt, 5) for prompt in (12, 7, 25, 9, 16, 3, 21, 14) * CHECKED]
    ways = setting.ways(alike)
    ours = ways.pop("ours")()
    found = {}
    for name, way in ways.items():
        if name == "products":
            continue
        losses = way()
        found[name] = max(abs(a - b) for a, b in zip(losses, ours, strict=True))
        # bfloat16 keeps 8 bits: the mixed form is another model by that much.
        if not found[name] < (0.1 if "mixed" in name else 1e-4):
            raise SystemExit(f"{name}: losses {losses} are not ours, {ours}: nothing is timed")
    return found


def measure(kind: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is timed with one model and number of threads, in this process."""
    lengths = read_lengths(given.lengths) if given.lengths else drawn(10_000)
    chosen = lengths[: STEP * (given.steps if kind != "tiny" else 4 * given.steps)]
    with tempfile.TemporaryDirectory() as folder:
        # Dropout draws its masks in another order in each way.
        facts: dict[str, Any] = {"losses_differ": check(Setting(kind, Path(folder), 0.0))}
        setting = Setting(kind, Path(folder), given.dropout)
        ways = setting.ways(chosen)
        seconds = rounds(ways, given.rounds, clock=CLOCKS[given.clock])
    tokens = sum(map(sum, chosen))
    facts["tokens_per_second"] = {
        name: round(tokens / statistics.median(each), 1) for name, each in seconds.items()
    }
    ours = [name for name in ways if name.startswith("ours")]
    facts["over"] = {
        mine: {name: ratio(seconds[name], seconds[mine]) for name in ways if name not in ours}
        for mine in ours
    }
    facts |= {"tokens": tokens, "tokens_with_loss": sum(r for _, r in chosen)}
    facts["padding"] = round(setting.padded(chosen) / tokens - 1, 3)
    print(f"{kind}, {given.threads[0]} threads: {facts}", file=sys.stderr, flush=True)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["tiny", "smollm2"])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--lengths", type=Path, help=f"JSON lines of {LENGTHS}")
    parser.add_argument("--steps", type=int, default=6, help="of 8 examples; four times as many with tiny")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.0, help="of the adapter")  # fmt: skip
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path, default=HERE / "training.json")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        torch.set_num_threads(given.threads[0])
        print(json.dumps(measure(given.measure, given)))
    else:
        from experiments.benchmarks.training_table import report

        report(given)


if __name__ == "__main__":
    main()
