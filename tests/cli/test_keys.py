"""A stage's key holds what can change its output, and nothing else: (change, the stages that change)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from elrea.data.prompts import Prompter
from elrea.pipeline.assemble import assemble
from elrea.pipeline.experiment import Experiment
from elrea.pipeline.graph import Builder, Node, graph_of
from elrea.pipeline.steps import answers, scores
from elrea.store.stage import Store
from tests.cli.commands import EXAM, TINY
from tests.cli.test_configs import CONF, composed
from tests.data.conftest import CHATML

EXPERTS = {"expert-0", "expert-1"}
ALL = {"base", "features-train", "clusters", *EXPERTS, "features-test", "scores"}
TEST = {"features-test", "scores"}
ANSWERS = {f"answers-{name}" for name in ("backbone", "base", "elrea", "elrea_top1", "uniform")}
WEIGHED = {"answers-elrea", "answers-elrea_top1"}
CHANGES: list[tuple[str, set[str]]] = [
    ("tracking.project=other", set()),
    ("tracking.tags=[a]", set()),
    ("evaluation.batch_size=3", set()),
    ("evaluation.resamples=9", set()),
    ("features.batch_size=3", set()),
    ("features.buffer_mb=7", set()),
    ("features.batch_tokens=99", set()),
    ("features.recompute=true", set()),
    ("training.checkpoint_minutes=1", set()),
    ("trainer.threads=2", set()),
    ("trainer.accelerator=auto", set()),
    ("trainer=ddp", set()),
    ("data.limit_train=1000", set()),
    ("seed=1", ALL),
    ("trainer.precision=bf16-mixed", ALL),
    ("backbone.max_length=300", ALL),
    ("backbone.template_date=2020-01-02", set()),
    ("+backbone.chat_template_kwargs.a=1", set()),
    ("backbone.add_bos=true", set()),
    ("backbone.add_bos=false", ALL),
    ("adapter.r=3", ALL),
    ("training.epochs=1", ALL),
    ("training.batch_size=4", ALL),
    ("data.train_per_board=15", ALL),
    ("data.test_per_board=5", TEST),
    ("data.dev_per_board=3", set()),
    ("features.projection.d=8", ALL - {"base"}),
    ("features.form=sgd", ALL - {"base"}),
    ("features.layers=1", ALL - {"base"}),
    ("features.normalise=false", ALL - {"base"}),
    ("features.epoch_weights=[1,2]", ALL - {"base"}),
    ("features.cost=cheap", ALL - {"base"}),
    ("clustering.restarts=2", {"clusters", *EXPERTS, "scores"}),
    ("training.expert_epochs=2", {*EXPERTS, "scores"}),
    ("training.expert_learning_rate=1e-3", {*EXPERTS, "scores"}),
    ("routing.temperature=2", {"scores"}),
    ("evaluation.strategies=[elrea]", {"scores"}),
    ("evaluation.by=likelihood", set()),
    ("evaluation.max_new_tokens=9", set()),
    ("evaluation.stop=[x]", set()),
    ("evaluation.think=keep", set()),
    ("evaluation.mean_logits=true", {"scores"}),
    ("evaluation.by=generation", {*ANSWERS, "scores"}),
]


def experiment(model: Path, *words: str) -> Experiment:
    left_out = ("hydra.", "features." if "features=embedding" in words else "hydra.")
    own = [word for word in TINY if not word.startswith(left_out)]
    config = composed(*own, *EXAM, f"backbone.name={model}", *words)
    return assemble(config, "elrea", CONF)


def keys(it: Experiment, root: Path) -> dict[str, str]:
    return graph_of(it, Store(root)).keys


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.fixture(scope="module")
def plain(small_model: Path) -> Experiment:
    return experiment(small_model)


@pytest.mark.parametrize(("word", "stages"), CHANGES, ids=[word for word, _ in CHANGES])
def test_a_setting_changes(
    word: str, stages: set[str], plain: Experiment, small_model: Path, tmp_path: Path
) -> None:
    other = experiment(small_model, word)
    assert changed(keys(plain, tmp_path), keys(other, tmp_path)) == stages


@pytest.mark.parametrize(("split", "stages"), [("train", ALL), ("test", TEST), ("dev", set())])
@pytest.mark.parametrize(
    "field", [{"response": "A"}, {"instruction": "Why?"}, {"shots": (("a", "b"),)}]
)
def test_one_changed_example_changes(
    split: str, stages: set[str], field: dict[str, Any], plain: Experiment, tmp_path: Path
) -> None:
    examples = list(getattr(plain.corpus, split))
    place = next(i for i, example in enumerate(examples) if example.response != "A")
    examples[place] = replace(examples[place], **field)
    made: dict[str, Any] = {split: tuple(examples)}
    other = replace(plain, corpus=replace(plain.corpus, **made))
    assert changed(keys(plain, tmp_path), keys(other, tmp_path)) == stages


def test_a_changed_model_changes_all_but_its_name_nothing(
    plain: Experiment, small_model: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(small_model, tmp_path / "elsewhere")
    before = keys(plain, tmp_path)
    assert changed(before, keys(experiment(moved), tmp_path)) == set()
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert changed(before, keys(experiment(moved), tmp_path)) == ALL


@pytest.mark.parametrize(
    ("words", "stages"), [(["trainer.devices=2"], set()), (["trainer=ddp"], ALL)]
)
@pytest.mark.parametrize("whose", ["the adapter's", "the backbone's"])
def test_processes_that_draw_dropout_of_their_own_change_what_they_train(
    whose: str, words: list[str], stages: set[str], small_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(small_model, tmp_path / "model"))
    dropout = ["adapter.dropout=0.1"]
    if whose == "the backbone's":
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
        dropout = []
    before = keys(experiment(model, *dropout), tmp_path)
    assert changed(before, keys(experiment(model, *dropout, *words), tmp_path)) == stages


@pytest.mark.parametrize(("turns", "stages"), [(1, ALL - {"base"}), (2, set())])
def test_a_template_that_carries_no_loss_changes_the_features_of_one_turn(
    turns: int,
    stages: set[str],
    small_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several turns the users' words alone have always carried it."""
    chat = shutil.copytree(small_model, tmp_path / "chat")
    template = "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
    (chat / "chat_template.jinja").write_text(template)
    now = experiment(chat)
    history = (("user", "Hi"), ("assistant", "Yes?")) * (turns - 1)
    made: dict[str, Any] = {
        split: tuple(replace(example, history=history) for example in getattr(now.corpus, split))
        for split in ("train", "dev", "test")
    }
    now = replace(now, corpus=replace(now.corpus, **made))
    assert now.prompter.masks_template
    found = keys(now, tmp_path)
    monkeypatch.setattr(Prompter, "masks_template", False)
    assert changed(keys(now, tmp_path), found) == stages


@pytest.mark.parametrize(
    ("word", "stages"),
    [
        ("routing.temperature=2", {"scores"}),
        ("routing.compare=false", {"features-test"}),
        ("routing.width=3", {"router", "routing", "scores"}),
        ("routing.layer=early", {"router", "routing", "scores"}),
        ("data.dev_per_board=3", {"router", "routing", "scores"}),
        ("data.test_per_board=5", {"routing", "features-test", "scores"}),
        ("clustering.restarts=2", {"clusters", *EXPERTS, "router", "routing", "scores"}),
    ],
)
def test_a_setting_of_a_distilled_router_changes(
    word: str, stages: set[str], plain: Experiment, small_model: Path, tmp_path: Path
) -> None:
    before = keys(experiment(small_model, "routing=distilled"), tmp_path)
    assert changed(keys(plain, tmp_path), before) == {"router", "routing", "scores"}
    after = keys(experiment(small_model, "routing=distilled", word), tmp_path)
    assert changed(before, after) == stages


def test_a_stop_text_that_begins_in_a_prompt_stands_in_the_key(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions ended answers at it; the other stages of theirs are still found. Prompts end with "Answer:"."""
    written = {*ANSWERS, "scores"}
    for stop, other in (("[x]", set()), ("[':x']", written), ("[' x']", written)):
        found = experiment(small_model, f"evaluation.stop={stop}", "evaluation.by=generation")
        new = keys(found, tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(answers, "_stops_in_a_prompt", lambda _context: False)
            assert changed(keys(found, tmp_path), new) == other


@pytest.mark.parametrize(("own", "stages"), [(False, {*ANSWERS, "scores"}), (True, set())])
def test_an_end_of_turn_that_the_model_does_not_know_stands_in_the_key_of_texts(
    own: bool, stages: set[str], small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions wrote on behind it, unless the model's own settings had it."""
    chat = Path(shutil.copytree(small_model, tmp_path / "chat"))
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(chat)
    model: Any = AutoModelForCausalLM.from_pretrained(chat)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *[turn] * own]
    model.save_pretrained(chat)
    found = experiment(chat, "evaluation.by=generation")
    (context,) = Builder(found).contexts
    assert answers._decoding(context).ends == (turn,)
    new = keys(found, tmp_path)
    monkeypatch.setattr(answers, "_new_ends", lambda _context: [])
    assert changed(keys(found, tmp_path), new) == stages


@pytest.mark.parametrize(
    ("choices", "judge", "stages"),
    [
        (("a", "b"), "", {"scores"}),
        (("a", "b"), "words", set()),
        (("A", "B"), "", set()),
        (("1", "2"), "", set()),
    ],
)
def test_small_letters_are_in_the_key_of_what_is_read_from_texts(
    choices: tuple[str, ...], judge: str, stages: set[str], small_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Older versions took an article for the letter "a"; where no text is read, all are still found."""
    plain, texts = (
        experiment(small_model, f"evaluation.by={by}") for by in ("likelihood", "generation")
    )
    last = replace(plain.corpus.test[-1], choices=choices, response=choices[1], judge=judge)
    for it, other in ((plain, set()), (texts, stages)):
        corpus = replace(it.corpus, test=(*it.corpus.test[:-1], last))
        new = keys(replace(it, corpus=corpus), tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(scores, "_small_letters", lambda _examples: False)
            assert changed(keys(replace(it, corpus=corpus), tmp_path), new) == other


@pytest.mark.parametrize(
    ("word", "stages"),
    [
        ("evaluation.max_new_tokens=9", {*ANSWERS, "scores"}),
        ("evaluation.stop=[x]", {*ANSWERS, "scores"}),
        ("evaluation.think=keep", {"scores"}),
        ("evaluation.batch_size=3", set()),
        ("evaluation.by=auto", {*ANSWERS, "scores"}),
        ("routing.temperature=2", {*WEIGHED, "scores"}),
        ("clustering.restarts=2", {"clusters", *EXPERTS, *WEIGHED, "answers-uniform", "scores"}),
        ("training.expert_epochs=2", {*EXPERTS, *WEIGHED, "answers-uniform", "scores"}),
        ("features.projection.d=8", (ALL | ANSWERS) - {"base", "answers-backbone", "answers-base"}),
        ("seed=1", (ALL | ANSWERS) - {"answers-backbone"}),
        ("data.test_per_board=5", {*TEST, *ANSWERS}),
        ("backbone.max_length=300", ALL | ANSWERS),
        ("evaluation.strategies=[backbone,elrea]", {"answers-elrea_top1", "answers-uniform", "scores"}),
    ],
)  # fmt: skip
def test_a_setting_changes_what_is_written(
    word: str, stages: set[str], small_model: Path, tmp_path: Path
) -> None:
    """A strategy's texts hang on its own members alone."""
    before = keys(experiment(small_model, "evaluation.by=generation"), tmp_path)
    after = keys(experiment(small_model, "evaluation.by=generation", word), tmp_path)
    assert changed(before, after) == stages


def test_examples_that_name_a_judge_are_written_for(plain: Experiment, tmp_path: Path) -> None:
    examples = list(plain.corpus.test)
    examples[0] = replace(examples[0], judge="letter")
    some = replace(plain, corpus=replace(plain.corpus, test=tuple(examples)))
    before, after = keys(plain, tmp_path), keys(some, tmp_path)
    assert changed(before, after) == {*TEST, *ANSWERS}
    likelihood = replace(some, evaluation=replace(some.evaluation, by="likelihood"))
    assert changed(before, keys(likelihood, tmp_path)) == TEST


def test_a_strategy_adds_its_adapters_and_no_more(small_model: Path, tmp_path: Path) -> None:
    before = keys(experiment(small_model), tmp_path)
    word = "evaluation.strategies=[backbone,base,elrea,elrea_top1,uniform,random_cluster,compute_matched]"
    after = keys(experiment(small_model, word), tmp_path)
    assert changed(before, after) == {"random-0", "random-1", "compute-matched", "scores"}


def test_a_strategys_own_settings_change_its_adapters_alone(
    small_model: Path, tmp_path: Path
) -> None:
    words = ["evaluation.strategies=[base,elrea,compute_matched,parameter_matched]"]
    before = keys(experiment(small_model, *words), tmp_path)
    own = experiment(small_model, *words, "evaluation.settings={compute_matched:{rate:0.6}}")
    assert changed(before, keys(own, tmp_path)) == {"compute-matched", "scores"}
    assert own.strategies["compute_matched"].rate == 0.6  # type: ignore[attr-defined]


def test_seeds_are_adapters_of_their_own(small_model: Path, tmp_path: Path) -> None:
    words = ["evaluation.strategies=[base,lora_ensembles,seed_ensemble]", "ensemble=base"]
    found = keys(experiment(small_model, *words), tmp_path)
    assert set(found) == {"base", "seed-1", "seed-2", "seed-3", "scores"}
    assert len(set(found.values())) == 5
    assert found["base"] == keys(experiment(small_model), tmp_path)["base"]


def test_without_experts_there_is_less_to_do(small_model: Path, tmp_path: Path) -> None:
    it = experiment(small_model)
    alone = replace(it, strategies={n: it.strategies[n] for n in ("backbone", "base")})
    after = keys(alone, tmp_path)
    assert set(after) == {"base", "scores"} and after["base"] == keys(it, tmp_path)["base"]


def test_embeddings_do_not_hang_on_the_base_adapter(small_model: Path, tmp_path: Path) -> None:
    embedding = experiment(small_model, "features=embedding")
    before = keys(embedding, tmp_path)
    after = keys(experiment(small_model, "features=embedding", "training.epochs=1"), tmp_path)
    assert changed(before, after) == {"base", *EXPERTS, "scores"}
    assert changed(before, keys(experiment(small_model), tmp_path)) == ALL - {"base"}


def test_an_embedding_model_is_keyed_by_what_is_in_it(small_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_model, tmp_path / "one"))
    moved = Path(shutil.copytree(small_model, tmp_path / "two"))
    words = [f"features.model={place}" for place in (folder, moved)]
    one, two = (keys(experiment(small_model, "features=embedding", w), tmp_path) for w in words)
    assert one == two
    (moved / "extra.json").write_text("{}")
    three = keys(experiment(small_model, "features=embedding", words[1]), tmp_path)
    assert changed(two, three) == ALL - {"base"}


def test_an_open_number_of_clusters_leaves_experts_to_come(
    small_model: Path, tmp_path: Path
) -> None:
    word = "evaluation.strategies=[backbone,base,elrea,compute_matched,parameter_matched]"
    graph = graph_of(experiment(small_model, word, "clustering.k=auto"), Store(tmp_path))
    assert not all(isinstance(node, Node) for _, node in graph.rows)
    known = ["base", "features-train", "clusters", "compute-matched", "features-test"]
    assert list(graph.stages) == known
    names = [name for name, _ in graph.rows]
    assert names == [*known[:4], "expert-*", "parameter-matched", "features-test", "scores"]
    alone = experiment(small_model, "clustering.k=auto")
    alone = replace(alone, strategies={n: alone.strategies[n] for n in ("backbone", "base")})
    assert list(graph_of(alone, Store(tmp_path)).stages) == ["base", "scores"]


def test_early_stop_hangs_on_dev_and_leaves_other_keys_alone(
    plain: Experiment, small_model: Path, tmp_path: Path
) -> None:
    stopped = experiment(small_model, "training.early_stop=1")
    before = keys(stopped, tmp_path)
    assert changed(keys(plain, tmp_path), before) == ALL
    assert changed(before, keys(experiment(small_model, "training.early_stop=2"), tmp_path)) == ALL
    dev = (replace(stopped.corpus.dev[0], instruction="Why?"), *stopped.corpus.dev[1:])
    other = replace(stopped, corpus=replace(stopped.corpus, dev=dev))
    assert changed(before, keys(other, tmp_path)) == ALL
