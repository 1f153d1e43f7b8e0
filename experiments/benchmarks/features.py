"""Measures the cost of gradient features against the pass that they need anyway, and against other ways to take them.

    make bench-features
    python -m experiments.benchmarks.features --models tiny --tokens 20 60 --rounds 3 --no-bergson

`plain` is a batched forward and backward pass of the same prompts with the adapter's summed gradient, in batches of
`--batch`; its time is 1.0. Ours is the reader that a run uses, in Adam's form, with LoRA of rank 8 on all linear
layers. The loop takes one prompt's backward pass after the other and projects as many rows at once as ours. A ratio is
of one round, in which each way runs once; the median, least and most over rounds are shown and written to features.json
beside this file. Before anything is timed, our features are checked against the loop's. Memory is the peak of a process
of its own, less the peak of one that only imports torch. Takes some minutes for `tiny` and half an hour with `mid` (12
layers, 768 wide) on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.measuring import (
    in_process,
    memory_mib,
    peaks_over_imports,
    ratio,
    rounds,
)

HERE = Path(__file__).parent
D, RANK = 1024, 8
Way = Callable[[], object]


class Setting:
    """A model with an adapter and the moments of an epoch, drawn at random in place of training.

    Args:
        kind: `tiny` (the built-in backbone) or `mid` (a Llama of 12 layers, 768 wide, with random weights).
        folder: For the epoch's checkpoint.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        from elrea.models import lora
        from elrea.models.adapter_shape import Lora
        from elrea.models.training.moments import Moments

        torch.manual_seed(0)
        self.model = lora.attach(backbone_of(kind), Lora(r=RANK, dropout=0.0), 0)
        generator = torch.Generator().manual_seed(1)

        def like(scale: float) -> dict[str, torch.Tensor]:
            state = lora.state(self.model)
            return {k: torch.randn(v.shape, generator=generator) * scale for k, v in state.items()}

        lora.set_state(self.model, like(0.02))
        lora.save(folder, lora.state(self.model), Lora(r=RANK, dropout=0.0), kind)
        squares = {name: tensor.square() for name, tensor in like(1e-3).items()}
        self.moments = Moments(like(1e-4), squares, 100, 1e-3, (0.9, 0.999), 1e-8)
        self.moments.save(folder)
        self.folder, self.vocabulary = folder, self.model.config.vocab_size

    def prompts(self, count: int, tokens: int) -> list[Any]:
        from elrea.data.prompts import Encoded

        generator = torch.Generator().manual_seed(tokens)
        ids = torch.randint(3, self.vocabulary, (count, tokens), generator=generator)
        return [Encoded(str(i), tuple(row), ()) for i, row in enumerate(ids.tolist())]

    def plain(self, prompts: list[Any], batch: int) -> Way:
        from elrea.method.features.per_example import prompt_loss

        ids = torch.tensor([prompt.prompt for prompt in prompts])
        mask = torch.ones_like(ids, dtype=torch.bool)

        def run() -> None:
            for part, kept in zip(ids.split(batch), mask.split(batch), strict=True):
                self.model.zero_grad()
                prompt_loss(self.model, part, kept, kept).backward()

        return run

    def ours(self, prompts: list[Any], batch: int, projection: Any) -> Callable[[], torch.Tensor]:
        from elrea.method.features.gradient import GradientFeatures

        features = GradientFeatures(projection, batch_size=batch)
        reader = features.reader(self.model, [self.folder], 0)
        batches = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
        return lambda: reader(batches, lambda _n: None)[0]

    def loop(self, prompts: list[Any], rows: int, projection: Any) -> Callable[[], torch.Tensor]:
        from elrea.method.features.adam import AdamState, adam_direction
        from elrea.method.features.per_example import prompt_loss
        from elrea.models.lora import parameters

        m = self.moments
        weights = [tensor for _, tensor in sorted(parameters(self.model).items())]
        first, second = (
            torch.cat([group[n].flatten() for n in sorted(group)])
            for group in (m.exp_avg, m.exp_avg_sq)
        )
        state = AdamState(first, second, m.step, m.learning_rate, *m.betas, m.eps)

        def one(prompt: Any) -> torch.Tensor:
            ids = torch.tensor([prompt.prompt])
            mask = torch.ones_like(ids, dtype=torch.bool)
            got = torch.autograd.grad(prompt_loss(self.model, ids, mask, mask), weights)
            return torch.cat([gradient.flatten() for gradient in got])

        def run() -> torch.Tensor:
            done = []
            for start in range(0, len(prompts), rows):
                stacked = torch.stack([one(prompt) for prompt in prompts[start : start + rows]])
                done.append(projection(adam_direction(stacked, state)))
            return torch.cat(done)

        return run

    def operations(self, tokens: int) -> float:
        """Multiplications and additions in the matrix products of one prompt's plain pass."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.plain(self.prompts(8, tokens), 8)()
        return counter.get_total_flops() / 8


def backbone_of(kind: str) -> Any:
    """The built-in backbone, or a Llama of 12 layers, 768 wide, with random weights; frozen."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if kind == "tiny":
        from elrea.models.backbone import TINY

        return AutoModelForCausalLM.from_pretrained(TINY).requires_grad_(False)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def projections() -> dict[str, Any]:
    from elrea.method.features.projection import Rademacher
    from elrea.method.features.sjlt import Sjlt

    return {"sjlt": Sjlt(D), "rademacher": Rademacher(D)}


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


def print_peak(way: str, given: argparse.Namespace) -> None:
    """Prints the peak memory of this process, MiB, after `way` has run."""
    if way != "torch":
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting("tiny", Path(folder))
            prompts = setting.prompts(given.batch * 4, 60)
            run: Way = setting.plain(prompts, given.batch)
            if way != "plain":
                run = setting.ours(prompts, given.batch, projections()[way])
            run()
    print(memory_mib()[1])


def memory(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Peak memory over the plain pass's, both less torch's own, for each projection."""

    def peak(way: str) -> float:
        words = ["--peak", way, f"--batch={given.batch}", f"--threads={given.threads}"]
        return float(in_process("features", words))

    above = peaks_over_imports(["plain", *projections()], "torch", peak, 3)
    return {name: ratio(above[name], above["plain"]) for name in projections()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=["tiny", "mid"], default=["tiny", "mid"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[20, 60, 200])
    parser.add_argument("--batch", type=int, default=32, help="prompts in one pass")
    parser.add_argument(
        "--batches", type=int, default=4, help="passes per round with tiny; with mid it is one"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-bergson", action="store_true", help="leave bergson out")
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
