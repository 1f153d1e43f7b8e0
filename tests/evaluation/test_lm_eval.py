"""Scores compared with lm-eval's: its tasks on the same files, with the same model or the same texts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.data.sampling import with_shots
from elrea.data.sources.mmlu import read_csv
from elrea.evaluation.draws import Draws
from elrea.evaluation.generation import read_texts, write_texts
from elrea.evaluation.judge import judge_of
from elrea.evaluation.scoring import Mixture, questions_of, score
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.models.backbone import Backbone, Tiny
from elrea.models.device import Device
from tests.real_files import real_data

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval (the extra `harness`) is not installed")

SUBJECTS = {"virology": (0, 120), "sociology": (0, 70), "astronomy": (2, 12)}
"""Subject -> shots, questions."""
HEADER = "The following are multiple choice questions (with answers) about {}."


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Tiny().load(Device("cpu", threads=1))


def local_task(
    folder: Path,
    name: str,
    base: str,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    more: str = "",
) -> None:
    """One of lm-eval's own tasks, on local rows instead of the hub's."""
    folder.mkdir(exist_ok=True)
    files = {split: folder / f"{name}-{split}.jsonl" for split in rows}
    for split, path in files.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[split]))
    given = "".join(f"    {split}: {json.dumps(str(path))}\n" for split, path in files.items())
    (folder / f"{name}.yaml").write_text(
        f"include: {json.dumps(str(Path(lm_eval.__file__).parent / 'tasks' / base))}\ntask: {name}\n"
        f"dataset_path: json\ndataset_name: null\ndataset_kwargs:\n  data_files:\n{given}{more}"
    )


def evaluated(model: Any, folder: Path, names: list[str]) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=model,
        tasks=names,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    return found


def hf(backbone: Backbone) -> Any:
    """lm-eval's model of this backbone, with a tokenizer that puts BOS first, as other Llama tokenizers do."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = Tiny().load(Device("cpu", threads=1)).tokenizer
    start = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start[0]} $A", special_tokens=[start]
    )
    return HFLM(
        pretrained=backbone.model, tokenizer=tokenizer, add_bos_token=True, max_length=2048, batch_size=8, device="cpu",
    )  # fmt: skip


def test_mmlu_by_likelihood_question_by_question(backbone: Backbone, tmp_path: Path) -> None:
    """202 real questions, with and without shots: equal choices, log-likelihoods and accuracies."""
    root = real_data("mmlu")
    examples, names = [], []
    for subject, (shots, count) in SUBJECTS.items():
        solved, test = (
            read_csv(root / split / f"{subject}_{split}.csv", subject, split)
            for split in ("dev", "test")
        )
        examples += [with_shots(example, solved, shots) for example in test[:count]]
        rows = {}
        for split in ("dev", "test"):
            with (root / split / f"{subject}_{split}.csv").open(encoding="utf-8", newline="") as f:
                rows[split] = [
                    {"question": q, "choices": options, "answer": "ABCD".index(letter)}
                    for q, *options, letter in islice(csv.reader(f), count)
                ]
        names.append(f"local_{subject}")
        header = json.dumps(HEADER.format(subject) + "\n\n")
        template = "mmlu/default/_default_template_yaml"
        more = f"description: {header}\nnum_fewshot: {shots}\n"
        local_task(tmp_path / "tasks", names[-1], template, rows, more)
    theirs = evaluated(hf(backbone), tmp_path / "tasks", names)

    prompter = Prompter(backbone.tokenizer, 2048, Tiny().wording())
    encoded, too_long = prompter.test(examples)
    assert not too_long and len(examples) == 202
    questions = questions_of(
        encoded, [prompter.choices(e) for e in examples], [e.answer for e in examples]
    )
    ours = score(
        JointModel(backbone.model, [None]), questions, {"m": Mixture([0], torch.ones(len(examples), 1))},
        batch_size=8, pad_id=backbone.pad_id,
    )["m"]  # fmt: skip
    samples = [
        sample
        for name in names
        for sample in sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
    ]
    for i, (example, sample) in enumerate(zip(examples, samples, strict=True)):
        assert sample["arguments"][0][0].endswith(example.instruction)
        logs = [float(answers[0][0]) for answers in sample["resps"]]
        loss = ours.loss[i]
        assert loss is not None and -loss == pytest.approx(logs[sample["target"]], abs=2e-4)
        close = sorted(logs)[-1] - sorted(logs)[-2] < 1e-3
        assert close or ours.choice[i] == max(range(4), key=logs.__getitem__)
        assert ours.correct[i] == (sample["acc"] == 1.0)
    for name, subject in zip(names, SUBJECTS, strict=True):
        mine = [c for c, e in zip(ours.correct, examples, strict=True) if e.category == subject]
        assert theirs["results"][name]["acc,none"] == pytest.approx(sum(mine) / len(mine))
    assert 0.1 < sum(ours.correct) / len(examples) < 0.6, "an accuracy that would hide differences"


def gsm8k(count: int) -> list[dict[str, str]]:
    with (real_data("gsm8k") / "test.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def test_greedy_texts_equal_lm_evals(backbone: Backbone, tmp_path: Path) -> None:
    """The same model generates the same texts for GSM8K in lm-eval."""
    rows = gsm8k(6)
    more = "num_fewshot: 0\ngeneration_kwargs:\n  until: ['Question:']\n  do_sample: false\n  max_gen_toks: 24\n"
    local_task(
        tmp_path / "tasks", "local_gsm8k", "gsm8k/gsm8k.yaml", {"test": rows, "train": rows}, more
    )
    theirs = evaluated(hf(backbone), tmp_path / "tasks", ["local_gsm8k"])
    samples = sorted(theirs["samples"]["local_gsm8k"], key=lambda sample: sample["doc_id"])
    texts = {sample["doc_id"]: sample["resps"][0][0] for sample in samples}

    prompter = Prompter(backbone.tokenizer, 2048, Tiny().wording())
    examples = [
        Example(str(i), f"Question: {row['question']}\nAnswer:", "", "gsm8k")
        for i, row in enumerate(rows)
    ]
    encoded, _ = prompter.test(examples, 24)
    folder = tmp_path / "ours"
    folder.mkdir()
    write_texts(
        folder, {i: e.prompt for i, e in enumerate(encoded)}, JointModel(backbone.model, [None]),
        {"m": Mixture([0], torch.ones(len(rows), 1))}, Decoding(24, stop=["Question:"]), Draws(), backbone.tokenizer,
        pad_id=backbone.pad_id, batch_size=4,
    )  # fmt: skip
    assert {i: text for i, (text,) in read_texts(folder)["m"].items()} == texts
    assert len(set(texts.values())) > 1 and all(texts.values())


def fixed_texts(texts: Sequence[str]) -> Any:
    """A model for lm-eval that returns the given texts."""
    from lm_eval.api.model import LM

    class FixedTexts(LM):
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return [texts[request.doc_id] for request in requests]

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            raise AssertionError("not asked for")

        loglikelihood_rolling = loglikelihood

    return FixedTexts()


# A text for a problem with answer `n` -> right by lm-eval's strict match, by its flexible match, by `maths`.
MATHS: dict[str, tuple[Callable[[str], str], bool, bool, bool]] = {
    "as in training": (lambda n: f"First 3, then 4.\n#### {n}", True, True, True),
    "with a unit": (lambda n: f"#### {n} dollars", True, True, True),
    "another number": (lambda n: f"#### {n}7", False, False, False),
    "in words": (lambda n: f"So the answer is ${n}.", False, True, True),
    "boxed": (lambda n: rf"So it is $\boxed{{{n}}}$", False, True, True),
    "nothing": (lambda n: "I do not know", False, False, False),
    "boxed, with words": (lambda n: rf"\boxed{{{n} eggs}}", False, True, True),
    "another box last": (lambda n: rf"\boxed{{{n}}} or \boxed{{{n}7}}", False, False, False),
    # They differ here: lm-eval compares the last number in the text as a string.
    "boxed, then more": (lambda n: rf"\boxed{{{n}}}, which is 123456 less", False, False, True),
    "a fraction": (lambda n: rf"\boxed{{\frac{{{97 * int(n)}}}{{97}}}}", False, False, True),
    "with places": (lambda n: rf"\boxed{{{n}.0}}", False, False, True),
    "a box that is cut off": (lambda n: rf"\boxed{{{n}", False, True, False),
    "thousands": (lambda n: rf"\boxed{{{n}\text{{ thousand}}}}", False, True, False),
    "a relation": (lambda n: rf"\boxed{{\ge {n}}}", False, True, False),
}  # fmt: skip


def test_gsm8ks_answers(tmp_path: Path) -> None:
    rows = gsm8k(len(MATHS) * 4)
    golds = [row["answer"].rpartition("#### ")[2].replace(",", "") for row in rows]
    kinds = [list(MATHS.values())[i % len(MATHS)] for i in range(len(rows))]
    texts = [kind[0](gold) for kind, gold in zip(kinds, golds, strict=True)]
    local_task(
        tmp_path / "tasks", "local_gsm8k", "gsm8k/gsm8k.yaml", {"test": rows, "train": rows},
        "num_fewshot: 0\n",
    )  # fmt: skip
    found = evaluated(fixed_texts(texts), tmp_path / "tasks", ["local_gsm8k"])["samples"][
        "local_gsm8k"
    ]
    theirs = {(sample["filter"], sample["doc_id"]): sample["exact_match"] for sample in found}
    for i, (gold, text, (_, strict, flexible, right)) in enumerate(
        zip(golds, texts, kinds, strict=True)
    ):
        example = Example(str(i), "?", rf"\boxed{{{gold}}}", "gsm8k", judge="maths")
        assert theirs["strict-match", i] == strict, text
        assert theirs["flexible-extract", i] == flexible, text
        assert judge_of(example)(text, example).correct is right, text


# A text for the target `t` -> right by lm-eval's BBH with chains of thought, by `answer`.
THOUGHTS: dict[str, tuple[Callable[[str], str], bool, bool]] = {
    "as in the prompts": (lambda t: f"Let's think.\nSo the answer is {t}.", True, True),
    "and a new question": (
        lambda t: f"So the answer is {t}.\n\nQ: ?\nA: So the answer is no.",
        True,
        True,
    ),
    "and a reason": (lambda t: f"So the answer is {t}.\nFor 2 reasons.", True, True),
    "another answer": (lambda t: f"So the answer is not {t}.", False, False),
    "no answer": (lambda t: f"First {t}.\nThen {t}.", False, False),
    # They differ here: lm-eval always drops the last character, and its match is case-sensitive.
    "no full stop": (lambda t: f"So the answer is {t}", False, True),
    "capitals": (lambda t: f"The Answer is {t}.", False, True),
    "without a thought": (lambda t: t, False, True),
}


def test_bbhs_answers(tmp_path: Path) -> None:
    rows: list[dict[str, str]] = []
    for name in ("boolean_expressions", "date_understanding", "dyck_languages", "word_sorting"):
        whole = json.loads((real_data("bbh") / f"{name}.json").read_text("utf-8"))["examples"]
        rows += whole[: 2 * len(THOUGHTS)]
    kinds = [list(THOUGHTS.values())[i % len(THOUGHTS)] for i in range(len(rows))]
    texts = [kind[0](row["target"]) for kind, row in zip(kinds, rows, strict=True)]
    local_task(
        tmp_path / "tasks", "local_bbh", "bbh/cot_fewshot/_cot_fewshot_template_yaml", {"test": rows},
        'doc_to_text: "Q: {{input}}\\nA:"\nnum_fewshot: 0\n',
    )  # fmt: skip
    found = evaluated(fixed_texts(texts), tmp_path / "tasks", ["local_bbh"])
    for sample in found["samples"]["local_bbh"]:
        i = sample["doc_id"]
        example = Example(str(i), "?", rows[i]["target"], "bbh", judge="answer")
        _, theirs, ours = kinds[i]
        assert sample["exact_match"] == theirs, texts[i]
        assert judge_of(example)(texts[i], example).correct is ours, texts[i]
    share = sum(theirs for _, theirs, _ in kinds) / len(kinds)
    assert found["results"]["local_bbh"]["exact_match,get-answer"] == pytest.approx(share)


def test_maths_normal_form() -> None:
    """Pairs of real answers of MATH are equal here if and only if lm-eval's normal forms are."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv, last_boxed_only_string, remove_boxed

    with (real_data("math") / "test_first1000.jsonl").open(encoding="utf-8") as lines:
        solutions = [json.loads(line)["solution"] for line in lines][:180:3]
    answers = [remove_boxed(last_boxed_only_string(solution)) for solution in solutions]
    pairs = [(a, b) for i, a in enumerate(answers) for b in answers[i : i + 3]]
    equal = 0
    for a, b in pairs:
        example = Example("m", "?", rf"$\boxed{{{a}}}$", "math", judge="maths")
        theirs = is_equiv(a, b)
        equal += theirs
        assert judge_of(example)(rf"$\boxed{{{b}}}$", example).correct is theirs, (a, b)
    assert 60 <= equal < len(pairs)
