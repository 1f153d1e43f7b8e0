"""Repeats the paper's cost table (appendix D.1): 2,000 examples to train on, 400 prompts to answer.

    python -m experiments.benchmarks.inference --paper gemma-2b      # a GPU with 24 GiB or more
    python -m experiments.benchmarks.inference --paper small         # minutes on a CPU, with a smaller shape

Gemma-2b's shape with random weights, lorem ipsum of 200 tokens (180 of the prompt, 20 of the response), batches of 4,
4 clusters, rank 8, 3 epochs, 20 new tokens. Tuning is a run of `run.py`, by the seconds of its stages; inference uses
the exported ensemble, and so does the base adapter alone. The paper's figures are beside ours; they are of its own code
on one 80 GB GPU, so only ratios can be compared.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.measuring import ROOT

WORDS = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat"
).split()
PAPER = {
    "base_tuning": 246.0, "train_features": 68.0, "experts": 246.0, "test_features": 14.0,
    "inference_base": 114.0, "inference": 262.0, "tuning_over_base": 2.3, "inference_over_base": 2.3,
    "memory_over_base": 2.4,
}  # fmt: skip
"""Appendix D.1: seconds, and ratios of all members to the base adapter."""

SHAPES: dict[str, dict[str, Any]] = {
    "gemma-2b": {
        "vocab_size": 256_000, "hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
    },
    "small": {
        "vocab_size": 4096, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32,
    },
}  # fmt: skip
SIZES = {"gemma-2b": (2000, 400), "small": (24, 8)}
BATCH, NEW, PROMPT, RESPONSE = 4, 20, 180, 20


def backbone(folder: Path, shape: str) -> Any:
    """Writes a Gemma of random weights with the built-in tokenizer, unless it is there; returns that tokenizer."""
    from transformers import AutoTokenizer, GemmaConfig, GemmaForCausalLM

    from elrea.models.backbone import TINY

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    if (folder / "tokenizer_config.json").is_file():  # written last
        return tokenizer
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = GemmaConfig(
        **SHAPES[shape],
        **special,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=1024,
    )
    torch.manual_seed(0)
    half = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model: Any = GemmaForCausalLM(config)
    model.to(half).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def lorem(path: Path, count: int, seed: int, tokenizer: Any) -> None:
    """Writes examples of lorem ipsum with `PROMPT` and `RESPONSE` tokens, to within a word."""
    draw = random.Random(seed)

    def text(tokens: int) -> str:
        words: list[str] = []
        while len(tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]) < tokens:
            words += draw.choices(WORDS, k=3)
        return " ".join(words)

    lines = (
        json.dumps({"instruction": text(PROMPT), "response": text(RESPONSE)}) for _ in range(count)
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def tune(work: Path, shape: str, sizes: tuple[int, int]) -> tuple[Path, dict[str, float]]:
    """Makes a whole run; returns its folder and the seconds of its stages."""
    made = backbone(work / "backbone", shape)
    for name, count, seed in zip(("train", "test"), sizes, (0, 1), strict=True):
        lorem(work / f"{name}.jsonl", count, seed, made)
    settings = [
        "data=jsonl", f"data.train={work / 'train.jsonl'}", f"data.test={work / 'test.jsonl'}",
        "data.dev=null", "data.allow_overlap=true", "backbone=pretrained", f"backbone.name={work / 'backbone'}",
        "adapter=lora", "adapter.r=8", "training=paper", "training.epochs=3", "training.expert_epochs=3",
        f"training.batch_size={BATCH}", "clustering.k=4", "clustering.min_size=1", "clustering.restarts=1",
        "evaluation.strategies=[base]", f"evaluation.batch_size={BATCH}", f"store={work / 'store'}",
        f"hydra.run.dir={work / 'run'}", "tracking.mode=disabled",
    ]  # fmt: skip
    subprocess.run([sys.executable, ROOT / "run.py", *settings], check=True, cwd=ROOT)
    summary = json.loads((work / "run" / "summary.json").read_text(encoding="utf-8"))
    return work / "run", {name: stage["seconds"] for name, stage in summary["stages"].items()}


def inference(run: Path, prompts: list[str]) -> dict[str, float]:
    """Seconds and peak memory for all prompts: of routing, of all members, and of the base adapter alone."""
    from elrea.data.examples import Example
    from elrea.method.ensemble.decoding import generate
    from elrea.method.ensemble.decoding_settings import Decoding
    from elrea.method.ensemble.ensemble import Ensemble
    from elrea.method.ensemble.joint import JointModel
    from elrea.method.ensemble.layerwise import LayerwiseModel
    from elrea.models import lora

    ensemble = Ensemble.load(run / "ensemble", backbone=str(run.parent / "backbone"))
    base = JointModel(ensemble.backbone.model, [lora.load(run / "ensemble" / ensemble.members[0])])
    decoding = Decoding(max_new_tokens=NEW)
    examples = [Example(f"prompt {i}", prompt, "", "") for i, prompt in enumerate(prompts)]
    encoded = [e.prompt for e in ensemble.prompter.test(examples, NEW)[0]]
    pad, tokenizer = ensemble.backbone.pad_id, ensemble.backbone.tokenizer

    def answer(model: JointModel | LayerwiseModel, weights: torch.Tensor) -> None:
        for i in range(0, len(weights), BATCH):
            some, own = encoded[i : i + BATCH], weights[i : i + BATCH]
            generate(model, some, own, decoding, tokenizer, pad_id=pad)

    def weights_of(some: list[str]) -> torch.Tensor:
        return torch.tensor([list(route.weights.values()) for route in ensemble.route(some)])

    answer(ensemble.joint, weights_of(prompts[:BATCH]))  # warms up
    weights = torch.empty(0)
    figures: dict[str, float] = {}
    for name in ("base", "route", "all"):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        if name == "base":
            answer(base, torch.ones(len(encoded), 1))
        elif name == "route":
            weights = weights_of(prompts)
        else:
            answer(ensemble.joint, weights)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            figures[f"{name}_bytes"] = float(torch.cuda.max_memory_allocated())
        figures[name] = time.perf_counter() - start
    return figures


def table(
    shape: str, sizes: tuple[int, int] | None = None, work: Path | None = None
) -> dict[str, Any]:
    """Runs everything; returns the figures by the names of `PAPER`, the sizes and the device.

    Args:
        shape: Of `SHAPES`.
        sizes: Examples to train on, and prompts to answer; None takes those of `SIZES`.
        work: Folder to keep model, run and stages in, so that a second call resumes; None keeps nothing.
    """
    sizes = sizes or SIZES[shape]
    with tempfile.TemporaryDirectory() as folder:
        work = work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        run, seconds = tune(work, shape, sizes)
        lines = (work / "test.jsonl").read_text(encoding="utf-8").splitlines()
        times = inference(run, [json.loads(line)["instruction"] for line in lines])
    experts = sum(value for name, value in seconds.items() if name.startswith("expert"))
    tuning = seconds["base"] + seconds["features-train"] + experts
    figures = {
        "base_tuning": seconds["base"], "train_features": seconds["features-train"], "experts": experts,
        "test_features": times["route"], "inference_base": times["base"],
        "inference": times["route"] + times["all"], "tuning_over_base": tuning / seconds["base"],
        "inference_over_base": (times["route"] + times["all"]) / times["base"],
    }  # fmt: skip
    if "all_bytes" in times:
        figures["memory_over_base"] = (
            max(times["all_bytes"], times["route_bytes"]) / times["base_bytes"]
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"shape": shape, "examples": sizes, "device": device, "figures": figures}


def show(found: dict[str, Any]) -> None:
    """Prints the figures and the paper's."""
    from rich.console import Console
    from rich.table import Table

    here = Table(title=f"The paper's toy, {found['shape']} on {found['device']}")
    for name in ("", "here", "paper (gemma-2b, 80 GB GPU)"):
        here.add_column(name, justify="right" if name else "left")
    for name, theirs in PAPER.items():
        value = found["figures"].get(name)
        unit = "" if "over" in name else " s"
        mine = "-" if value is None else f"{value:.3g}{unit}"
        here.add_row(name.replace("_", " "), mine, f"{theirs:g}{unit}")
    Console(width=100).print(here)
