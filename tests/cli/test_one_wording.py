"""The same rows through training, scoring, predict, chat, Python and lm-eval: the same token ids reach the model."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.commands import chat, predict
from elrea.data.examples import Example
from elrea.data.options import Options
from elrea.data.prompts import Ids
from elrea.data.sources.jsonl import Jsonl
from elrea.data.wording import Wording, wording_facts
from elrea.method.ensemble import decoding
from elrea.method.ensemble import ensemble as ensemble_module
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.pipeline.experiment import Experiment
from elrea.store.files import read_json, with_checksum, write_json
from tests.cli.commands import Ended
from tests.cli.test_keys import changed, experiment, keys

CHATML = (  # its markers are no tokens of the byte-level tokenizer
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKS = (
    "{{ 'Today ' + strftime_now('%d %b %Y') + '\n' }}{% for m in messages %}{{ '[' + m['role'] + ']' }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ '<think></think>' }}{% endif %}{{ m['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
HISTORY = [["Hi", "Yes?"], ["user", "assistant"]]
ROWS: dict[str, dict[str, Any]] = {
    "instruction": {"instruction": "Say one.", "output": "One."},
    "input": {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    "space": {"prompt": "  Say two. ", "completion": " Two."},
    "choices": {"prompt": "Which?", "choices": [" this ", "that one\n"], "answer": 1},
    "system": {"system": "Be brief.", "instruction": "Say three.", "response": "Three."},
    "history": {"instruction": "Say four.", "history": HISTORY, "output": "Four."},
    "messages": {
        "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Say five."},
            {"role": "assistant", "content": "Five."},
        ]
    },
}  # fmt: skip
CHOSEN = ("choices",)


@dataclass
class Seen:
    """The token ids that reach the model."""

    written: list[Ids] = field(default_factory=list)
    scored: list[tuple[Ids, list[Ids]]] = field(default_factory=list)
    routed: list[Ids] = field(default_factory=list)
    stops: list[list[str]] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Notes what reaches the model instead of running it."""
    seen = Seen()

    def generate(
        _joint: Any, prompts: list[Ids], _weights: Any, settings: Decoding, *_: Any, **__: Any
    ) -> Any:
        seen.written += prompts
        seen.stops.append(settings.stop)
        return [(70,)] * len(prompts)

    def score(_joint: Any, asked: list[tuple[Ids, list[Ids]]], *_: Any, **__: Any) -> Any:
        seen.scored += asked
        return [[-float(len(ids)) for ids in choices] for _, choices in asked]

    def extract(_model: Any, _epochs: Any, prompts: Any, *_: Any, **__: Any) -> torch.Tensor:
        seen.routed += [encoded.prompt for encoded in prompts]
        return torch.ones(len(prompts), 16)

    monkeypatch.setattr(decoding, "generate", generate)
    monkeypatch.setattr(ensemble_module, "log_likelihoods", score)
    monkeypatch.setattr(ensemble_module, "extract", extract)
    return seen


@dataclass
class Trained:
    """A run on the rows, and an ensemble as it would export."""

    experiment: Experiment
    folder: Path
    backbone: Path
    examples: dict[str, Example]

    @property
    def words(self) -> list[str]:
        return [str(self.folder), "--backbone", str(self.backbone), "--max-new-tokens", "4"]

    def load(self) -> Ensemble:
        device = Device("cpu", threads=1)
        return Ensemble.load(self.folder, backbone=str(self.backbone), device=device)


@pytest.fixture(scope="module", params=["plain", "chatml", "thinks"])
def trained(
    request: pytest.FixtureRequest, whole: Ended, small_model: Path, tmp_path_factory: Any
) -> Iterator[Trained]:
    """The whole run's ensemble, as if its backbone had another chat template."""
    root = tmp_path_factory.mktemp(request.param)
    backbone = root / "model"
    shutil.copytree(small_model, backbone)
    template = {"plain": "", "chatml": CHATML, "thinks": THINKS}[request.param]
    if template:
        (backbone / "chat_template.jinja").write_text(template)
    data = root / "train.jsonl"
    data.write_text("".join(json.dumps({**row, "id": name}) + "\n" for name, row in ROWS.items()))
    options: Options = "text" if request.param == "chatml" else "letters"
    corpus = Jsonl(train=[str(data)], test_share=0.0, options=options).read()
    examples = {e.id.rpartition(":")[2]: e for e in corpus.train}
    it = experiment(backbone, "backbone.template_date=2020-02-03")
    folder = root / "ensemble"
    shutil.copytree(whole.folder / "out" / "ensemble", folder)
    facts = read_json(folder / "ensemble.json")
    facts["backbone"]["fingerprint"] = Pretrained(str(backbone)).identity()
    facts["prompts"] = wording_facts(it.prompter.wording)
    facts["options"] = options
    write_json(folder / "ensemble.json", with_checksum(facts))
    yield Trained(it, folder, backbone, examples)


def wanted(trained: Trained) -> tuple[dict[str, Ids], dict[str, list[Ids]]]:
    """Of training and scoring: the ids of each row's prompt, and of its choices."""
    prompter, examples = trained.experiment.prompter, trained.examples
    encoded, dropped = prompter.train(examples.values())
    scored, too_long = prompter.test(examples.values())
    assert not dropped and not too_long
    prompts = {name: e.prompt for name, e in zip(examples, encoded, strict=True)}
    assert [e.prompt for e in scored] == list(prompts.values())
    assert [e.prompt for e in prompter.routing(examples.values())] == list(prompts.values())
    for example, both in zip(examples.values(), encoded, strict=True):
        for choice in prompter.choices(example):
            if both.response[: len(choice)] == choice:
                break
        else:
            assert not example.choices
    return prompts, {name: prompter.choices(e) for name, e in examples.items() if e.choices}


def test_training_has_the_templates_own_text(trained: Trained) -> None:
    """By hand: transformers' template, or blocks with empty lines between them."""
    tokenizer = trained.experiment.backbone.tokenizer()
    prompts, _ = wanted(trained)
    if tokenizer.chat_template is None:
        text = "Be brief.\n\nHi Yes?\n\nSay five."
        assert list(prompts["messages"]) == tokenizer(text)["input_ids"]
        assert list(prompts["input"]) == tokenizer("Add.\n\n1 and 2")["input_ids"]
        return
    text = str(tokenizer.apply_chat_template(ROWS["messages"]["messages"], tokenize=False))
    today = text.partition("\n")[0]
    text = text.replace(today, "Today 03 Feb 2020") if "Today" in today else text
    (encoded,), _ = trained.experiment.prompter.train([trained.examples["messages"]])
    ids = tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"]
    assert [*encoded.prompt, *encoded.response] == [*ids, tokenizer.eos_token_id]


@pytest.mark.parametrize("responses", [True, False])
def test_predict(trained: Trained, seen: Seen, responses: bool, tmp_path: Path) -> None:
    prompts, choices = wanted(trained)
    rows = [{**row, "id": name} for name, row in ROWS.items()]
    if not responses:
        for row in rows:
            for name in ("output", "completion", "response", "answer"):
                row.pop(name, None)
            if "messages" in row:
                row["messages"] = row["messages"][:-1]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predict.main([*trained.words, "--in", str(path), "--out", str(tmp_path / "answers.jsonl")])
    assert seen.written == [ids for name, ids in prompts.items() if name not in CHOSEN]
    assert seen.scored == [(prompts[name], choices[name]) for name in CHOSEN]
    assert seen.routed == list(prompts.values())
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["id"] for row in answers] == list(ROWS)


def test_chat(
    trained: Trained, seen: Seen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    prompts, _ = wanted(trained)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Say one.\n  Say two. \n"))
    chat.main(trained.words)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Say three.\n"))
    chat.main([*trained.words, "--system", "Be brief."])
    assert seen.written == [prompts[name] for name in ("instruction", "space", "system")]
    assert seen.routed == seen.written
    capsys.readouterr()


def test_python(trained: Trained, seen: Seen) -> None:
    prompts, choices = wanted(trained)
    ensemble, examples = trained.load(), list(trained.examples.values())
    ensemble.generate(examples)
    ensemble.generate(list(ROWS.values()))
    assert seen.written == seen.routed == [*prompts.values(), *prompts.values()]
    seen.written.clear()
    ensemble.generate(["Say one.", "Add.\n\n1 and 2", "  Say two. "])
    assert seen.written == [prompts[name] for name in ("instruction", "input", "space")]
    chosen = [trained.examples[name] for name in CHOSEN]
    ensemble.score([ROWS[name] for name in CHOSEN])
    ensemble.score(chosen)
    ensemble.score(chosen, [[f" {choice}\n" for choice in e.choices] for e in chosen])
    assert seen.scored == [(prompts[name], choices[name]) for name in CHOSEN] * 3


def test_score_has_history_header_and_shots(trained: Trained, seen: Seen) -> None:
    full = Example(
        "full", "Which?", "A", "s", choices=("A", "B"), header="About things.", shots=(("Why?", "B"),),
        history=(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?")),
    )  # fmt: skip
    ensemble = trained.load()
    (encoded,), _ = trained.experiment.prompter.test([full])
    ensemble.generate([full])
    ensemble.score([full])
    ensemble.score([full], [["A", "B"]])
    ensemble.score([full], [["no", "yes"]])
    assert seen.written == [encoded.prompt]
    assert [prompt for prompt, _ in seen.scored] == [encoded.prompt] * 3
    assert seen.scored[0] == (encoded.prompt, trained.experiment.prompter.choices(full))
    assert encoded.shots == 1 and len(seen.routed[0]) < len(encoded.prompt)


def test_lm_eval(trained: Trained, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval (the extra `harness`) is not installed")
    from elrea.commands import lm_eval_model
    from tests.cli.test_harness import Asked

    prompts, choices = wanted(trained)
    monkeypatch.setattr(lm_eval_model, "generate", decoding.generate)

    def likelihoods(_joint: Any, asked: Any, *_: Any, **__: Any) -> Any:
        seen.scored.extend(asked)
        return [[(0.0, True) for _ in row] for _, row in asked]

    monkeypatch.setattr(lm_eval_model, "likelihoods", likelihoods)
    lm = lm_eval_model.ElreaLM(str(trained.folder), backbone=str(trained.backbone), device="cpu")
    texts = ["Say one.", "Add.\n\n1 and 2"]
    lm.generate_until([Asked((text, {"until": ["."], "max_gen_toks": 4})) for text in texts])
    lengths = sorted([prompts["instruction"], prompts["input"]], key=len, reverse=True)
    assert seen.written == lengths  # the longest first
    assert seen.stops[0] == [".", *trained.experiment.prompter.stop]
    which = trained.examples["choices"]
    lm.loglikelihood([Asked((which.instruction, f" {choice}")) for choice in which.choices])
    assert seen.scored == [(prompts["choices"], choices["choices"])]


def test_a_closing_text_is_taken_off_again(
    trained: Trained, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ChatML's marker is no token here: it is learned as text, and ends what is written."""
    ensemble = trained.load()
    ensemble.generate(["Hi"], Decoding(stop=["."]))
    has_marker = "<|im_end|>" in (trained.experiment.backbone.tokenizer().chat_template or "")
    assert seen.stops == [[".", *(["<|im_end|>"] if has_marker else [])]]
    text = tuple(
        ensemble.backbone.tokenizer("red<|im_end|>\nand", add_special_tokens=False)["input_ids"]
    )
    monkeypatch.setattr(decoding, "generate", lambda *_, **__: [text])
    assert ensemble.generate(["Hi"]) == ["red" if has_marker else "red<|im_end|>\nand"]


def test_an_ensemble_of_an_older_version_begins_prompts_with_bos(
    trained: Trained, seen: Seen, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(trained.folder, folder)
    facts = read_json(folder / "ensemble.json")
    for name in ("prompts", "options"):
        del facts[name]
    write_json(folder / "ensemble.json", with_checksum(facts))
    device = Device("cpu", threads=1)
    ensemble = Ensemble.load(folder, backbone=str(trained.backbone), device=device)
    assert ensemble.prompter.wording == Wording(add_bos=True, words_alone=False)
    assert ensemble.saved.options == "text"
    del seen


def test_a_date_is_a_part_of_keys_where_the_template_prints_it(
    trained: Trained, tmp_path: Path
) -> None:
    prints = "strftime_now" in (trained.experiment.backbone.tokenizer().chat_template or "")
    other = experiment(trained.backbone, "backbone.template_date=2021-02-03")
    mine, theirs = (keys(it, tmp_path) for it in (trained.experiment, other))
    assert changed(mine, theirs) == (set(mine) if prints else set())
