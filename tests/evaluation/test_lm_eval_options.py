"""data.options=text compared with lm-eval on rows of ARC, OpenBookQA and HellaSwag: acc, acc_norm and acc_bytes.

The same file goes through lm-eval's own tasks with its HFLM, with our model of lm-eval, and through a run's scores.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.rows import RowReader
from elrea.evaluation.scoring import Mixture, Outcome, questions_of, score
from elrea.evaluation.strategy_figures import strategy_figures
from elrea.method.ensemble.ensemble import Ensemble, Route
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.likelihood import log_likelihoods
from elrea.models.backbone import Backbone, Pretrained
from elrea.models.device import Device
from tests.real_files import real_model

pytest.importorskip("lm_eval", reason="lm-eval (the extra `harness`) is not installed")

from tests.evaluation.test_lm_eval import evaluated, local_task

ROWS = 40
METRICS = "metric_list:\n" + "".join(
    f"  - metric: {name}\n    aggregation: mean\n    higher_is_better: true\n"
    for name in ("acc", "acc_norm", "acc_bytes")
)
TASKS = {
    "arc": ("arc/arc_easy.yaml", "test"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "test"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
}
PLAIN = "the cat saw a red ball and ran to its big happy friend in the park".split()
WORDS = [*PLAIN, "café", "naïve", "über", "日本"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module", params=["random", "TinyStories-656K"])
def backbone(request: pytest.FixtureRequest, small_model: Path) -> Backbone:
    real = request.param != "random"
    folder = real_model(request.param) if real else small_model
    return Pretrained(name=str(folder)).load(Device("cpu", threads=1))


def made_rows(task: str, words: list[str], tokenizer: Any) -> list[dict[str, Any]]:
    """Rows in a task's published layout, of random words. No token spans "Answer:" and a choice."""
    draw, ending = random.Random(task), tokenizer("Answer:").input_ids
    apart = [w for w in words if tokenizer(f"Answer: {w}").input_ids[: len(ending)] == ending]

    def text(most: int) -> str:
        return " ".join([draw.choice(apart), *draw.choices(words, k=draw.randint(0, most))])

    rows = []
    for i in range(5 * ROWS):
        options: list[str] = []
        while len(options) < 4:
            new = text(8)
            options += [new] if new not in options else []
        answer = draw.randrange(4)
        if task == "hellaswag":
            more = {"ind": i, "activity_label": "Play", "ctx_a": text(9), "ctx_b": text(4)}
            rows.append({**more, "ctx": "", "endings": options, "label": str(answer)})
        else:
            name = "question" if task == "arc" else "question_stem"
            choices = {"text": options, "label": list("ABCD")}
            rows.append({name: f"{text(12)}?", "choices": choices, "answerKey": "ABCD"[answer]})
    return rows


def our_rows(task: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in lm-eval's wording, which for OpenBookQA is the file's own."""
    from lm_eval.tasks.hellaswag.utils import preprocess

    if task == "arc":
        return [{**row, "question": f"Question: {row['question']}\nAnswer:"} for row in rows]
    if task == "openbookqa":
        return rows
    return [
        {
            "ctx": preprocess(
                f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
            ),
            "endings": [preprocess(ending) for ending in row["endings"]],
            "label": row["label"],
        }
        for row in rows
    ]


def is_split(row: Mapping[str, Any], tokenizer: Any) -> bool:
    """Whether no token spans prompt and choice: lm-eval then takes wrong ids for the choice, or none."""
    prompt = str(row.get("question") or row.get("question_stem") or row["ctx"])
    texts = row["endings"] if "endings" in row else row["choices"]["text"]
    alone = tokenizer(prompt).input_ids
    joint = [tokenizer(f"{prompt} {text}").input_ids for text in texts]
    return all(ids[: len(alone)] == alone and len(ids) > len(alone) for ids in joint)


def hf(backbone: Backbone) -> Any:
    """lm-eval's model of transformers, with a tokenizer that puts BOS first, as ours."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = copy.deepcopy(backbone.tokenizer)
    start = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start[0]} $A", special_tokens=[start]
    )
    return HFLM(
        pretrained=backbone.model, tokenizer=tokenizer, add_bos_token=True, max_length=512, batch_size=8, device="cpu"
    )  # fmt: skip


class Alone(Ensemble):
    """An ensemble that is the backbone alone."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.members = backbone, ["backbone"]
        self.joint = JointModel(backbone.model, [None])
        self.prompter = Prompter(backbone.tokenizer, 512)

    def route(self, prompts: Sequence[str | Mapping[str, Any] | Example]) -> list[Route]:
        return [Route({"backbone": 1.0}, [0.0], 0) for _ in prompts]


def bridge(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our model of lm-eval, of the backbone alone."""
    from elrea.commands import lm_eval_model

    ensemble = Alone(backbone)
    monkeypatch.setattr(lm_eval_model, "ensemble_of", lambda *_args, **_settings: ensemble)
    return lm_eval_model.ElreaLM(path="a run", batch_size=8)


def ours(
    examples: tuple[Example, ...], backbone: Backbone
) -> tuple[Outcome, list[list[float]], dict[str, Any]]:
    """The outcome as a run scores it, the log-likelihoods, and the figures of summary.json."""
    prompter, joint = Prompter(backbone.tokenizer, 512), JointModel(backbone.model, [None])
    encoded, too_long = prompter.test(examples)
    assert not too_long
    answers = [example.answer for example in examples]
    questions = questions_of(
        encoded, [prompter.choices(e) for e in examples], answers, [e.choices for e in examples]
    )
    weights = torch.ones(len(examples), 1)
    found = score(
        joint, questions, {"base": Mixture([0], weights)}, batch_size=8, pad_id=backbone.pad_id
    )["base"]
    logs = log_likelihoods(
        joint, [(q.prompt, q.continuations) for q in questions], weights, batch_size=8, pad_id=backbone.pad_id
    )  # fmt: skip
    figures = strategy_figures({"base": found}, {"base": 1.0}, 0, 10, answers=answers)["base"]
    return found, logs, figures


def by_metric(samples: list[dict[str, Any]], name: str) -> list[bool]:
    return [sample[name] == 1.0 for sample in samples]


@pytest.mark.parametrize("task", TASKS)
def test_choices_as_text(
    task: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per item: the same log-likelihoods, and the same choice is right by acc, acc_norm and acc_bytes."""
    real = "TinyStories" in backbone.name
    rows = made_rows(task, PLAIN if real else WORDS, backbone.tokenizer)
    pairs = list(zip(rows, our_rows(task, rows), strict=True))
    kept = [pair for pair in pairs if is_split(pair[1], backbone.tokenizer)][:ROWS]
    rows, own = ([pair[side] for pair in kept] for side in (0, 1))
    base, split = TASKS[task]
    local_task(tmp_path / "tasks", "local", base, {split: rows, "train": rows}, METRICS)
    theirs: dict[str, Mapping[str, Any]] = {
        "HFLM": evaluated(hf(backbone), tmp_path / "tasks", ["local"]),
        "elrea": evaluated(bridge(backbone, monkeypatch), tmp_path / "tasks", ["local"]),
    }
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in own))
    reader = RowReader(options="text")
    examples = read_files({"data.test": str(path)}, reader, Drops())["data.test"]
    found, logs, figures = ours(examples, backbone)

    answers = [example.answer for example in examples]
    right = {
        "acc": [c == a for c, a in zip(found.choice, answers, strict=True)],
        "acc_norm": [c == a for c, a in zip(found.choice_norm, answers, strict=True)],
        "acc_bytes": [c == a for c, a in zip(found.choice_bytes, answers, strict=True)],
    }
    for model, results in theirs.items():
        samples = sorted(results["samples"]["local"], key=lambda sample: sample["doc_id"])
        for example, sums, sample in zip(examples, logs, samples, strict=True):
            assert sample["arguments"][0][0] == example.instruction, model
            values = [float(answer[0][0]) for answer in sample["resps"]]
            assert values == pytest.approx(sums, abs=2e-4), model
        for name, each in right.items():
            assert each == by_metric(samples, name), (model, name)
            assert figures[name] == pytest.approx(results["results"]["local"][f"{name},none"])
    assert figures["acc_n"] == ROWS and figures["accuracy"] == figures["acc"]
    assert found.choice != found.choice_norm, "no item on which length matters"
    if not real:
        assert found.choice_norm != found.choice_bytes, "no item on which bytes are no characters"
