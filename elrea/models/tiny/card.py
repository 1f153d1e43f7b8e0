"""Evaluates the tiny backbone on the exam's subjects and writes its model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from elrea.data.exam.boards import LETTERS
from elrea.data.exam.items import make_item, split_of
from elrea.data.exam.subjects import SUBJECTS
from elrea.data.exam.words import CONVENTIONS
from elrea.models.tiny.corpus import random_form

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

QUESTIONS = 100
"""Number of questions per subject, none of them in the training text."""

CARD = """---
license: apache-2.0
library_name: transformers
---
# elrea-tiny

A Llama-architecture model of {parameters:,} parameters with a byte-level tokenizer of {vocabulary} tokens (it encodes
every string), for trying fine-tuning methods without a download. It knows the subjects of the project's built-in exam
and almost nothing else, so it is of no use as a general language model.

Trained from scratch on text made by `elrea/models/tiny/corpus.py` (seed {seed}, {steps:,} steps, {tokens:,} tokens, no
other data), by `make backbone`. Context 2,048 tokens, trained on up to 1,024. The text contains no question of the
exam's dev and test splits, and nothing of its boards: neither their wording nor their conventions.

Accuracy ({questions} unseen questions per subject, in random forms; chance is 25 %): with the deciding convention
stated, and without it, where the answer of either reading counts:

| subject | stated, % | unstated, either reading, % |
|---|---|---|
{rows}
"""


@torch.inference_mode()
def evaluate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> dict[str, tuple[float, float]]:
    """Per subject: accuracy with the convention stated, and share of either reading's answer without."""
    model.eval()
    letters = [tokenizer.encode(f" {letter}", add_special_tokens=False)[0] for letter in LETTERS]
    scores = {}
    for subject in SUBJECTS:
        rng = Random(f"card/{subject}")
        stated = unstated = 0
        for _ in range(QUESTIONS):
            item = make_item(subject, rng)
            while split_of(item) == "train":
                item = make_item(subject, rng)
            which, form, options = rng.randrange(2), random_form(rng), rng.sample(item.options, 4)
            shown = form.render(item.stem, options)
            rule = f"Rule: {CONVENTIONS[item.convention][which]}.\n" if item.convention else ""

            def pick(text: str, options: list[str] = options) -> str:
                ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
                return options[int(logits[letters].argmax())]

            stated += pick(rule + shown) == item.answers[which]
            unstated += pick(shown) in item.answers
        scores[subject] = (stated / QUESTIONS, unstated / QUESTIONS)
    return scores


def write_card(
    folder: Path, facts: Mapping[str, Any], scores: Mapping[str, tuple[float, float]]
) -> None:
    """Writes README.md into the model's folder."""
    rows = [f"| {name} | {100 * a:.0f} | {100 * b:.0f} |" for name, (a, b) in scores.items()]
    means = [sum(column) / len(scores) for column in zip(*scores.values(), strict=True)]
    rows.append(f"| mean | {100 * means[0]:.1f} | {100 * means[1]:.1f} |")
    text = CARD.format(**facts, questions=QUESTIONS, rows="\n".join(rows))
    (folder / "README.md").write_text(text, encoding="utf-8")
