"""The models, the lengths and the ways to train that the benchmark of training compares."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from elrea.errors import ConfigError
from experiments.benchmarks.features_setting import backbone_of

RANK, STEP, RATE = 8, 8, 1e-3
LENGTHS = '{"prompt": 50, "response": 17}'
# Lengths at these shares of 900 examples of flan_cot, GSM8K and questions with one-word answers.
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
PROMPTS = (17, 23, 33, 50, 61, 73, 84, 195)
RESPONSES = (2, 2, 6, 17, 44, 115, 160, 286)
Way = Callable[[], list[float]]
Lengths = Sequence[tuple[int, int]]


def drawn(count: int) -> list[tuple[int, int]]:
    """Tokens of prompt and response, independent of each other, linear between the quantiles above."""
    rng = random.Random(0)

    def one(lengths: Sequence[int]) -> int:
        share = rng.random()
        above = next(i for i, each in enumerate(SHARES) if each > share)
        low, high = SHARES[above - 1], SHARES[above]
        start, end = lengths[above - 1], lengths[above]
        return round(start + (end - start) * (share - low) / (high - low))

    return [(one(PROMPTS), one(RESPONSES)) for _ in range(count)]


def read_lengths(path: Path) -> list[tuple[int, int]]:
    """Tokens of prompt and response from a file of JSON lines.

    Raises:
        ConfigError: A line is something else, or there are none.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            pair = (row["prompt"], row["response"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}:{number}: give a line as {LENGTHS}") from error
        if any(type(value) is not int or value < 1 for value in pair):
            raise ConfigError(f"{path}:{number}: lengths must be 1 or more, as in {LENGTHS}")
        found.append(pair)
    if not found:
        raise ConfigError(f"{path}: no lines; give lines as {LENGTHS}")
    return found


class Setting:
    """A backbone and the ways to train it.

    Args:
        kind: `smollm2`, `tiny`, or a folder with a model.
        folder: For what the ways write.
        dropout: Of the adapter.
    """

    def __init__(self, kind: str, folder: Path, dropout: float) -> None:
        torch.manual_seed(0)
        self.backbone = _backbone(kind)
        self.folder, self.dropout = folder, dropout
        self.vocabulary = int(self.backbone.config.vocab_size)

    def examples(self, lengths: Lengths) -> list[Any]:
        """Random tokens of these lengths; the token 0 is left to the padding."""
        from elrea.data.prompts import Encoded

        generator = torch.Generator().manual_seed(1)

        def some(count: int) -> tuple[int, ...]:
            return tuple(torch.randint(3, self.vocabulary, (count,), generator=generator).tolist())

        return [Encoded(str(i), some(p), some(r)) for i, (p, r) in enumerate(lengths)]

    def schedule(self, examples: Sequence[Any]) -> Any:
        """One epoch, in our order."""
        from elrea.models.training.batches import items
        from elrea.models.training.settings import Recipe, Training

        recipe = Recipe(1, RATE, Training(batch_size=STEP))
        return recipe, recipe.schedule(items(examples, "response"), 0, "base")

    def padded(self, lengths: Lengths) -> int:
        """Tokens and padding of the steps as they are."""
        examples = self.examples(lengths)
        order = self.schedule(examples)[1].order(1)
        return sum(len(step) * max(sum(lengths[i]) for i in step) for step in order)

    def ways(self, lengths: Lengths) -> dict[str, Way]:
        """By name: trains one epoch from the same start, and returns the losses of its steps."""
        examples = self.examples(lengths)
        recipe, schedule = self.schedule(examples)
        ordered = [examples[i] for step in schedule.order(1) for i in step]
        ways: dict[str, Way] = {
            "ours": self._ours(examples, recipe),
            "ours, mixed": self._ours(examples, recipe, mixed=True),
            "trainer": self._trainer(ordered),
        }
        if find_spec("trl"):
            ways["trl"] = self._trainer(ordered, trl=True)
        ways["products"] = self._products(ordered)
        return ways

    def _adapted(self, *, mixed: bool = False) -> Any:
        """A copy of the backbone with an adapter; its frozen weights are shared."""
        from copy import deepcopy

        from elrea.models import lora
        from elrea.models.mixed import to_mixed

        shared = {id(weight): weight for weight in self.backbone.parameters()}
        model = deepcopy(self.backbone, shared)
        if mixed:
            to_mixed(model)
        return lora.attach(model, self._lora(), 0)

    def _lora(self) -> Any:
        from elrea.models.adapter_shape import Lora

        return Lora(r=RANK, dropout=self.dropout)

    def _ours(self, examples: list[Any], recipe: Any, *, mixed: bool = False) -> Way:
        from elrea.models.training.train import train_adapter

        model, lora = self._adapted(mixed=mixed), self._lora()
        count = iter(range(10**9))

        def run() -> list[float]:
            folder = self.folder / f"ours-{mixed}-{next(count)}-{id(model)}"
            train_adapter(
                model, examples, recipe, pad_id=0, lora=lora, base_name="base", seed=0, stage="base", folder=folder,
                keep_moments=False,
            )  # fmt: skip
            curve = json.loads((folder / "curve.json").read_text())
            return [row["loss"] for row in curve]

        return run

    def _trainer(self, ordered: list[Any], *, trl: bool = False) -> Way:
        """transformers' Trainer, or TRL's; both save the adapter and the optimiser at the end of the epoch, as ours."""
        from elrea.models import lora

        model = self._adapted()
        start = lora.state(model)
        rows = [
            {
                "input_ids": [*e.prompt, *e.response],
                "labels": [-100] * len(e.prompt) + list(e.response),
            }
            for e in ordered
        ]
        options: dict[str, Any] = {
            "output_dir": str(self.folder / f"trainer-{trl}-{id(model)}"), "num_train_epochs": 1,
            "per_device_train_batch_size": STEP, "learning_rate": RATE, "lr_scheduler_type": "linear",
            "weight_decay": 0.0, "max_grad_norm": 0.0, "train_sampling_strategy": "sequential", "logging_steps": 1,
            "save_strategy": "epoch", "save_total_limit": 1, "report_to": "none", "disable_tqdm": True, "use_cpu": True,
            "bf16": False, "seed": 0,
        }  # fmt: skip
        make = _sft if trl else _plain

        def run() -> list[float]:
            lora.set_state(model, start)
            trainer = make(model, rows, options)
            with _quiet():
                trainer.train()
            losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
            model.eval()
            return losses

        return run

    def _products(self, ordered: list[Any]) -> Way:
        """The products of the frozen weights, step by step, without padding."""
        model = self._adapted().get_base_model()
        head = model.get_output_embeddings()
        layers = [
            m.base_layer.weight for m in model.modules() if hasattr(getattr(m, "base_layer", None), "weight")
        ]  # fmt: skip
        steps = [ordered[start : start + STEP] for start in range(0, len(ordered), STEP)]
        shapes = [
            (sum(len(e.prompt) + len(e.response) for e in step), sum(len(e.response) for e in step))
            for step in steps
        ]
        widest = max(max(weight.shape) for weight in [*layers, head.weight])
        most = max(max(shape) for shape in shapes)
        rows = torch.ones(most * max(max(weight.shape) for weight in layers))
        loss_rows = torch.ones(128 * widest)

        def run() -> list[float]:
            with torch.no_grad():
                for tokens, counted in shapes:
                    for weight in layers:
                        _both(rows, tokens, weight)
                    for start in range(0, counted, 128):
                        _both(loss_rows, min(128, counted - start), head.weight)
            return []

        return run


def _both(numbers: torch.Tensor, tokens: int, weight: torch.Tensor) -> None:
    """The product of the forward pass, and that of the input's gradient."""
    out, into = weight.shape
    numbers[: tokens * into].view(tokens, into) @ weight.t()
    numbers[: tokens * out].view(tokens, out) @ weight


def _plain(model: Any, rows: list[dict[str, Any]], options: dict[str, Any]) -> Any:
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    return Trainer(
        model=model,
        args=TrainingArguments(**options),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(_tokenizer()),
    )


def _sft(model: Any, rows: list[dict[str, Any]], options: dict[str, Any]) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    more = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTTrainer(
        model=model,
        args=SFTConfig(**options, **more, completion_only_loss=True, gradient_checkpointing=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(),
    )


def _quiet() -> Any:
    """Keeps the losses of each step, which the others print, off the terminal."""
    from contextlib import redirect_stdout
    from io import StringIO

    return redirect_stdout(StringIO())


def _tokenizer() -> Any:
    """Of the built-in backbone: it only pads here."""
    from transformers import AutoTokenizer

    from elrea.models.backbone import TINY

    return AutoTokenizer.from_pretrained(TINY)


def _backbone(kind: str) -> Any:
    if kind in ("smollm2", "tiny"):
        return backbone_of(kind)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(kind, dtype=torch.float32, use_safetensors=True)
    return model.eval().requires_grad_(False)
