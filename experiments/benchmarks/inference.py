"""Measures what all members together cost at inference, against the base adapter alone and against other ways.

    make bench-inference
    python -m experiments.benchmarks.inference --models tiny --experts 4 --batch 1 --rounds 3

`base` is PEFT with one adapter, not merged; `joint` is the project's forward pass of all C + 1 members; `mixed` is
PEFT's own pass of a batch with mixed adapters (`adapter_names`), a row per member; `switching` has PEFT run one member
after the other. All have LoRA of rank 8 on every linear layer, cache keys and values, and choose greedily from the mean
of the members' logits. Before anything is timed, the three ways of all members are checked to give the same logits.
`decode` is a step of one token per prompt after 60 tokens, `prefill` the prompt's own pass. A ratio is of one round, in
which each way runs once; the median, least and most over rounds are written to inference.json beside this file. Memory
is the peak of a process of its own, less the peak of one that only imports; the backbone's weights are included. Takes
an hour with `mid`; `--experts` without a number measures the distilled router alone. On a GPU the paper's own toy
follows (`paper_toy.py`); `--models --choices --paper small` runs that alone, small, on any machine.

`choices` scores 4 choices of 8 tokens behind 100 tokens: a prompt that is read once, against a row per choice, whose
log-likelihoods are compared first. `--models --choices 135m --threads 1` measures that alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks import inference_choices, paper_toy
from experiments.benchmarks.features_setting import backbone_of
from experiments.benchmarks.measuring import (
    in_process,
    machine,
    memory_mib,
    peaks_over_imports,
    ratio,
    rounds,
)

HERE = Path(__file__).parent
RANK, PROMPT, STEPS = 8, 60, 32
Forward = Callable[..., Any]


class Members:
    """A backbone with members in PEFT, and the same members in the project's joint model.

    Args:
        kind: `tiny` (the built-in backbone), `mid` (a Llama of 12 layers, 768 wide, with random weights) or `135m` (one
            of 30 layers, 576 wide, the shape of SmolLM2-135M).
        count: Members, C + 1.
        ways: Which of them to prepare; each has a backbone of its own.
    """

    def __init__(self, kind: str, count: int, ways: list[str]) -> None:
        from elrea.method.ensemble.joint import JointModel
        from elrea.models import lora
        from elrea.models.adapter_shape import Lora

        shape = Lora(r=RANK, dropout=0.0)
        self.count, self.ways = count, {}
        adapters = []
        donor = lora.attach(_backbone(kind), shape, 0)
        self.vocabulary = int(donor.config.vocab_size)
        state = lora.state(donor)
        for number in range(count):
            draw = torch.Generator().manual_seed(number)
            adapters.append(
                ({n: torch.randn(t.shape, generator=draw) * 0.02 for n, t in state.items()}, shape)
            )
        backbone = lora.detach(donor)
        if "joint" in ways:
            self.joint = JointModel(backbone, adapters)
            self.ways["joint"] = self._joint
        if set(ways) - {"joint"}:
            model = lora.attach(
                backbone if "joint" not in ways else _backbone(kind), shape, 0
            ).eval()
            lora.set_state(model, adapters[0][0])
            for number in range(1, count if {"mixed", "switching"} & set(ways) else 1):
                model.add_adapter(f"m{number}", model.peft_config["default"])
                model.set_adapter(f"m{number}")
                lora.set_state(model, adapters[number][0])
            model.set_adapter("default")
            self.peft = model.requires_grad_(False)
            self.names = ["default", *(f"m{number}" for number in range(1, count))]
            found = {"base": self._base, "mixed": self._mixed, "switching": self._switching}
            self.ways |= {name: found[name] for name in ways if name != "joint"}

    def _joint(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """A prompt's pass in the chunks that the project's `generate` asks for."""
        rows = ids.repeat(self.count, 1)
        with self.joint.rows() as model:
            for part in rows.split(self.joint.chunk(*rows.shape) or rows.shape[1], dim=1):
                logits, cache = self._mean(model, part, cache)
        return logits, cache

    def _mixed(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        names = [name for name in self.names for _ in range(len(ids))]
        return self._mean(self.peft, ids.repeat(self.count, 1), cache, adapter_names=names)

    def _base(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        out = self.peft(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], out.past_key_values

    def _switching(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        caches = cache or [None] * self.count
        each = []
        for number, name in enumerate(self.names):
            self.peft.set_adapter(name)
            logits, caches[number] = self._base(ids, caches[number])
            each.append(logits)
        self.peft.set_adapter("default")
        return sum(each[1:], each[0]) / self.count, caches

    def _mean(self, model: Any, ids: Tensor, cache: Any, **more: Any) -> tuple[Tensor, Any]:
        out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **more)
        logits = out.logits[:, -1].unflatten(0, (self.count, -1)).mean(0)
        return logits, out.past_key_values

    def prompts(self, batch: int, tokens: int) -> Tensor:
        draw = torch.Generator().manual_seed(tokens)
        return torch.randint(3, self.vocabulary, (batch, tokens), generator=draw)


def _backbone(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "135m":
        from transformers import LlamaConfig, LlamaForCausalLM

        shape = LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(shape).eval()
    return backbone_of(kind)


@torch.inference_mode()
def written(way: Forward, ids: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Greedy tokens [batch, steps], and the logits that each was chosen from [batch, steps, vocabulary]."""
    logits, cache = way(ids, None)
    tokens, seen = [], []
    for _ in range(steps):
        seen.append(logits)
        tokens.append(logits.argmax(-1, keepdim=True))
        logits, cache = way(tokens[-1], cache)
    return torch.cat(tokens, 1), torch.stack(seen, 1)


class Decoding:
    """A way's steps of one token without the prefill: each call continues from the end of a new prompt."""

    def __init__(self, way: Forward, ids: Tensor) -> None:
        self.way, self.ids = way, ids
        self.fresh()

    @torch.inference_mode()
    def fresh(self) -> None:
        self.logits, self.cache = self.way(self.ids, None)

    @torch.inference_mode()
    def __call__(self) -> None:
        for _ in range(STEPS):
            token = self.logits.argmax(-1, keepdim=True)
            self.logits, self.cache = self.way(token, self.cache)


@torch.inference_mode()
def read(way: Forward, ids: Tensor, following: Tensor) -> Tensor:
    """Logits after a prompt and after each of some given tokens [batch, steps + 1, vocabulary]."""
    logits, cache = way(ids, None)
    seen = [logits]
    for token in following.split(1, dim=1):
        logits, cache = way(token, cache)
        seen.append(logits)
    return torch.stack(seen, 1)


def check(members: Members, batch: int) -> float:
    """Largest difference between the logits of the three ways of all members, over the largest logit.

    The tokens are fixed, because logits of a model with random weights can differ by less than rounding errors. The
    likeliest token must be the same wherever it leads by more than the differences.

    Raises:
        SystemExit: They disagree.
    """
    given = members.prompts(batch, PROMPT), members.prompts(batch, 4)
    mine = read(members.ways["joint"], *given)
    best = mine.topk(2, dim=-1)
    worst = 0.0
    for name in ("mixed", "switching"):
        theirs = read(members.ways[name], *given)
        gap = float((mine - theirs).abs().max())
        worst = max(worst, gap / float(mine.abs().max()))
        sure = best.values[..., 0] - best.values[..., 1] > 2 * gap
        same = (theirs.argmax(-1) == best.indices[..., 0]) | ~sure
        if not worst < 1e-3 or not same.all():
            raise SystemExit(
                f"{name}: logits differ from the joint ones by {worst:.2g}: nothing is timed"
            )
    return worst


def measure(kind: str, experts: int, batch: int, count: int) -> list[dict[str, Any]]:
    """Rows of one backbone, number of experts and batch size."""
    members = Members(kind, experts + 1, ["joint", "base", "mixed", "switching"])
    differs = check(members, batch)
    rows = []
    for phase, tokens in (("decode", PROMPT), ("prefill", 60), ("prefill", 200)):
        ids = members.prompts(batch, tokens)
        ways: dict[str, Any] = {}
        for name, way in members.ways.items():
            ways[name] = torch.inference_mode()(lambda way=way, ids=ids: way(ids, None))
        if phase == "decode":
            ways = {name: Decoding(way, ids) for name, way in members.ways.items()}
        seconds = rounds(ways, count, restart)
        rows.append(
            {
                "backbone": kind, "members": experts + 1, "batch": batch, "phase": phase, "tokens": tokens,
                "joint_over_base": ratio(seconds["joint"], seconds["base"]),
                "peft_mixed_over_joint": ratio(seconds["mixed"], seconds["joint"]),
                "switching_over_joint": ratio(seconds["switching"], seconds["joint"]),
                "differs": differs,
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def restart(way: Any) -> None:
    """Gives decoding new keys and values."""
    if isinstance(way, Decoding):
        way.fresh()


def distilled(kind: str, count: int) -> dict[str, Any]:
    """One expert alone behind the distilled router, over the base adapter: 200 prompt tokens, 200 new ones or none."""
    from elrea.method.features.states import AdaptedStates, PromptStates
    from elrea.method.routing.student import Student

    members = Members(kind, 5, ["joint", "base"])
    ids = members.prompts(1, 200)
    reader = AdaptedStates(members.peft, 0, PromptStates())
    student = Student(reader.dimension, 4, 256).eval()
    one = torch.tensor([1])

    def ours(ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        with members.joint.rows(one) as model:
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], out.past_key_values

    def routed() -> None:
        from elrea.data.prompts import Encoded

        states, _ = reader([[Encoded("x", tuple(ids[0].tolist()), ())]], lambda _n: None)
        student.predict(states.numpy()).argmax()

    def whole(way: Forward, steps: int, route: bool) -> Callable[[], None]:
        def run() -> None:
            if route:
                routed()
            written(way, ids, steps)

        return run

    found = {}
    for name, steps in (("generation", 200), ("letter", 1)):
        ways = {
            "base": whole(members.ways["base"], steps, False),
            "ours": whole(ours, steps, True),
        }
        seconds = rounds(ways, count)
        found[name] = ratio(seconds["ours"], seconds["base"])
    return found


def print_peak(way: str, kind: str, experts: int, batch: int) -> None:
    """Prints the peak memory of this process, MiB, after `way` has written some tokens."""
    import peft  # noqa: F401
    import transformers  # noqa: F401

    from elrea.method.ensemble import joint  # noqa: F401

    if way != "imports":
        members = Members(kind, experts + 1, [way])
        written(members.ways[way], members.prompts(batch, PROMPT), 8)
    print(memory_mib()[1])


def memory(kind: str, experts: int, batch: int, count: int) -> dict[str, float]:
    """Peak memory of the joint way over the base's."""

    def peak(way: str) -> float:
        words = ["--peak", way, kind, str(experts), str(batch)]
        return float(in_process("inference", words))

    above = peaks_over_imports(["base", "joint"], "imports", peak, count)
    return ratio(above["joint"], above["base"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", choices=["tiny", "mid"], default=["tiny", "mid"])
    parser.add_argument("--choices", nargs="*", choices=["tiny", "mid", "135m"], default=["135m"])
    parser.add_argument("--experts", type=int, nargs="*", default=[4, 9])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=HERE / "inference.json")
    toy = "gemma-2b" if torch.cuda.is_available() else None
    parser.add_argument(
        "--paper", choices=sorted(paper_toy.SHAPES), default=toy, help="the paper's toy"
    )
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if given.peak:
        print_peak(given.peak[0], given.peak[1], int(given.peak[2]), int(given.peak[3]))
        return
    rows: list[dict[str, Any]] = []
    alone: dict[str, Any] = {}
    behind: list[dict[str, Any]] = []
    for kind in given.choices:
        for experts, batch in ((0, 8), (4, 1)):
            members = Members(kind, experts + 1, ["joint"])
            behind.append(inference_choices.measure(members, kind, batch, given.rounds))
            save(given, rows, alone, behind)
    for kind in given.models:
        alone[kind] = distilled(kind, given.rounds)
        save(given, rows, alone, behind)
        for experts in given.experts:
            for batch in given.batch:
                found = measure(kind, experts, batch, given.rounds)
                found[0]["memory_over_base"] = memory(kind, experts, batch, min(3, given.rounds))
                rows += found
                save(given, rows, alone, behind)  # a benchmark that is stopped keeps these
    show(rows, alone, behind)
    if given.paper:
        toy_figures = paper_toy.table(given.paper)
        paper_toy.show(toy_figures)
        save(given, rows, alone, behind, toy_figures)


def save(
    given: argparse.Namespace,
    rows: list[dict[str, Any]],
    alone: dict[str, Any],
    behind: list[dict[str, Any]],
    toy: Any = None,
) -> None:
    """Writes the figures so far."""
    from elrea.store.files import write_json

    facts = {
        "rank": RANK, "steps": STEPS, "rounds": given.rounds, "machine": machine(threads=given.threads), "rows": rows,
        "distilled_top1_over_base": alone, "choices": behind, "paper_toy": toy,
    }  # fmt: skip
    write_json(given.out, facts)


def show(rows: list[dict[str, Any]], alone: dict[str, Any], behind: list[dict[str, Any]]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="All members at once, medians")
    for name in ("backbone", "members", "batch", "phase", "tokens"):
        table.add_column(name)
    keys = ("joint_over_base", "peft_mixed_over_joint", "switching_over_joint", "memory_over_base")
    for name in ("joint / base", "PEFT mixed / joint", "switching / joint", "memory / base"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [str(row[name]) for name in ("backbone", "members", "batch", "phase", "tokens")]
        cells += [f"{row[key]['median']:.2f}" if key in row else "" for key in keys]
        table.add_row(*cells)
    console = Console(width=100)
    console.print(table)
    for kind, found in alone.items():
        each = ", ".join(f"{name} {figures['median']:.2f}" for name, figures in found.items())
        console.print(f"{kind}: one expert behind the distilled router / base: {each}")
    for row in behind:
        console.print(inference_choices.line(row))


if __name__ == "__main__":
    main()
