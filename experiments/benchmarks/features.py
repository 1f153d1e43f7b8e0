"""Measures the cost of gradient features against the pass that they need anyway, and against other ways to take them.

    make bench-features
    python -m experiments.benchmarks.features --models tiny --tokens 20 60 --rounds 3 --no-bergson

`plain` is a batched forward and backward pass of the same prompts with the adapter's summed gradient, in batches of
`--batch`; its time is 1.0. Ours is the reader that a run uses, in Adam's form, with LoRA of rank 8 on all linear
layers. The loop takes one prompt's backward pass after the other and projects as many rows at once as ours. A ratio is
of one round, in which each way runs once; the median, least and most over rounds are shown and written to features.json
beside this file. Before anything is timed, our features are checked against the loop's. Memory is the peak of a process
of its own, less the peak of one that only imports torch. With `--large` it is also measured with 32 prompts of 113
tokens and random weights of SmolLM2-135M's shape, as a run takes them and with all prompts and logits at once. Takes
some minutes for `tiny` and half an hour with `mid` (12 layers, 768 wide) on two cores; `--models smollm2` takes
SmolLM2-135M's shape, and `--threads 1` one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.features_setting import LARGE, D, Setting, Way, projections
from experiments.benchmarks.measuring import (
    memory_mib,
    ratio,
    rounds,
)

HERE = Path(__file__).parent


def check(setting: Setting, batch: int) -> float:
    """Largest deviation of our features from the loop's, over their largest entry.

    Raises:
        SystemExit: They disagree.
    """
    worst = 0.0
    prompts = setting.prompts(5, 20) + setting.prompts(3, 11)
    for name, projection in projections().items():
        wanted = setting.loop(prompts, batch, projection)()
        got = torch.cat(
            [setting.ours(prompts[:5], 2, projection)(), setting.ours(prompts[5:], 3, projection)()]
        )
        worst = max(worst, float((got - wanted).abs().max() / wanted.abs().max()))
        if not worst < 1e-2:  # Adam's form is steep where a gradient is next to nothing
            raise SystemExit(
                f"{name}: features differ from the loop's by {worst:.2g}: nothing is timed"
            )
    return worst


def measure(kind: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is timed with one model, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(kind, Path(folder))
        facts: dict[str, Any] = {
            "differs_from_loop": check(setting, given.batch),
            "over_plain": {},
            "loop": {},
        }
        facts["parameters"] = sum(p.numel() for p in setting.model.parameters() if p.requires_grad)
        facts["operations_over_plain"], facts["prompts_per_second"] = {}, {}
        for tokens in given.tokens:
            measure_length(setting, kind, tokens, given, facts)
    return facts


def measure_length(
    setting: Setting, kind: str, tokens: int, given: argparse.Namespace, facts: dict[str, Any]
) -> None:
    """Times prompts of one length; adds to the facts."""
    count = given.batch * (given.batches if kind == "tiny" else 1)
    prompts = setting.prompts(count, tokens)
    ways: dict[str, Way] = {"plain": setting.plain(prompts, given.batch)}
    for name, projection in projections().items():
        ways[name] = setting.ours(prompts, given.batch, projection)
    if kind == "tiny":
        for name, projection in projections().items():
            ways[f"loop {name}"] = setting.loop(prompts, count, projection)
    seconds = rounds(ways, given.rounds)
    for name in projections():
        got = ratio(seconds[name], seconds["plain"])
        facts["over_plain"].setdefault(name, {})[str(tokens)] = got
        if kind == "tiny":
            loop = ratio(seconds[f"loop {name}"], seconds[name])
            facts["loop"].setdefault(name, {})[str(tokens)] = loop
        print(f"{kind}, {tokens} tokens, {name}: {got} of plain", file=sys.stderr, flush=True)
    floor = 1 + 2 * facts["parameters"] * D / setting.operations(tokens)
    facts["operations_over_plain"][str(tokens)] = round(floor, 3)
    rates = {name: round(count / statistics.median(each), 1) for name, each in seconds.items()}
    facts["prompts_per_second"][str(tokens)] = rates


def all_at_once() -> None:
    """From here on, a pass has the whole batch and computes all logits at once, as before there were chunks."""
    from elrea.method.features import per_example
    from elrea.models import chunked_loss

    per_example.KEPT = 2**62
    chunked_loss.ENTRIES["cpu"] = 2**62


def print_peak(way: str, given: argparse.Namespace) -> None:
    """Prints the peak memory of this process, MiB, after `way` has run."""
    if way in LARGE:
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting("smollm2", Path(folder))
            if way == LARGE[1]:
                all_at_once()
            setting.ours(setting.prompts(32, 113), 32, projections()["sjlt"])()
    elif way != "torch":
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting("tiny", Path(folder))
            prompts = setting.prompts(given.batch * 4, 60)
            run: Way = setting.plain(prompts, given.batch)
            if way != "plain":
                run = setting.ours(prompts, given.batch, projections()[way])
            run()
    print(memory_mib()[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", choices=["tiny", "mid", "smollm2"], default=["tiny", "mid"]
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[20, 60, 200])
    parser.add_argument("--batch", type=int, default=32, help="prompts in one pass")
    parser.add_argument(
        "--batches", type=int, default=4, help="passes per round with tiny; with mid it is one"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-bergson", action="store_true", help="leave bergson out")
    parser.add_argument(
        "--large", action="store_true", help="memory with SmolLM2-135M's shape, too: up to 11 GB"
    )
    parser.add_argument("--out", type=Path, default=HERE / "features.json")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print_peak(given.peak, given)
    elif given.measure:
        print(json.dumps(measure(given.measure, given)))
    else:
        from experiments.benchmarks.features_table import report

        report(given)


if __name__ == "__main__":
    main()
