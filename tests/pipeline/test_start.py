"""`adapter.start`: the base adapter goes on from a LoRA that PEFT wrote; the figures are those of PEFT by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from elrea.data.prompts import Encoded
from elrea.errors import ConfigError, ElreaError
from elrea.models.adapter_shape import Lora
from elrea.models.lora import load
from elrea.models.start import started
from elrea.pipeline.assemble import assemble
from elrea.pipeline.graph import graph_of
from elrea.pipeline.run import Pipeline
from elrea.store.files import read_json
from elrea.store.stage import Store
from tests.cli.commands import EXAM, TINY
from tests.cli.test_configs import CONF, composed
from tests.cli.test_keys import changed

ALL = {"base", "features-train", "clusters", "expert-0", "expert-1", "features-test", "scores"}
WORDS = [
    *(word for word in TINY if not word.startswith(("hydra.", "adapter.r"))),
    *EXAM,
    "training.epochs=1", "training.batch_size=64", "adapter.dropout=0.0",
]  # fmt: skip
"""One optimiser step on all examples, without dropout."""


def made(model: Path, folder: Path, **given: Any) -> Path:
    """A LoRA folder as PEFT saves it, with random weights."""
    torch.manual_seed(3)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], **given}
    config = peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    adapted.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "rslora"])
def start(request: pytest.FixtureRequest, small_model: Path, tmp_path_factory: Any) -> Path:
    return made(small_model, tmp_path_factory.mktemp("start") / "lora", use_rslora=request.param)


def pipeline(model: Path, store: Path, *words: str) -> Pipeline:
    config = composed(*WORDS, f"backbone.name={model}", *words)
    return Pipeline(assemble(config, "elrea", CONF, words), Store(store))


def by_hand(model: Path, adapter: Path, examples: list[Encoded]) -> float:
    """Mean over examples of the mean loss per token of the response."""
    found = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter)
    losses = []
    for example in examples:
        ids = torch.tensor([[*example.prompt, *example.response]])
        labels = ids.clone()
        labels[:, : len(example.prompt)] = -100
        with torch.no_grad():
            losses.append(float(found.eval()(input_ids=ids, labels=labels).loss))
    return sum(losses) / len(losses)


def test_the_base_adapter_goes_on_from_it(start: Path, small_model: Path, tmp_path: Path) -> None:
    """The first step's loss is the start's; the step itself is Adam's at the start."""
    it = pipeline(small_model, tmp_path / "store", f"adapter.start={start}")
    it.check(None)
    it.run("base")
    folder, config = it.graph.stages["base"].folder, read_json(start / "adapter_config.json")
    (row,) = read_json(folder / "curve.json")
    examples = it.graph.branches[0].context.encoded_train[0]
    assert row["loss"] == pytest.approx(by_hand(small_model, start, examples), abs=1e-5)
    fresh = made(small_model, tmp_path / "zero", use_rslora=config["use_rslora"])
    for name in ("r", "lora_alpha", "use_rslora"):
        written = read_json(folder / "adapter" / "adapter_config.json")
        assert written[name] == config[name], name
    assert sorted(written["target_modules"]) == sorted(config["target_modules"])
    before, after = load(fresh)[0], load(folder / "adapter")[0]
    assert before.keys() == after.keys()
    rate = row["learning_rate"]
    for name, tensor in before.items():
        step = (after[name] - tensor).abs().max()
        assert 0 < step <= 1.01 * rate, f"Adam's first step is of the learning rate's size: {name}"
    changed_by = by_hand(small_model, folder / "adapter", examples) - row["loss"]
    assert changed_by < 0, "PEFT reads the trained adapter, and it is better"


def test_a_step_of_nothing_leaves_it_as_it_was(
    start: Path, small_model: Path, tmp_path: Path
) -> None:
    rate = "training.learning_rate=1e-30"
    it = pipeline(small_model, tmp_path / "store", f"adapter.start={start}", rate)
    it.run("base")
    before, lora = load(start)
    after, shape = load(it.graph.stages["base"].folder / "adapter")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert (shape.r, shape.scale, shape.rslora) == (lora.r, lora.scale, lora.rslora)
    assert (it.graph.stages["base"].folder / "epoch_1" / "moments.safetensors").is_file()


def keys(model: Path, *words: str) -> dict[str, str]:
    config = composed(*WORDS, f"backbone.name={model}", *words)
    return graph_of(assemble(config, "elrea", CONF, words), Store(Path("none"))).keys


def test_the_weights_are_in_the_key_and_the_place_is_not(
    start: Path, small_model: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(start, tmp_path / "copy")
    first = keys(small_model, f"adapter.start={start}")
    assert keys(small_model, f"adapter.start={copy}/") == first
    made(small_model, copy, use_rslora=read_json(start / "adapter_config.json")["use_rslora"])
    (copy / "README.md").write_text("words")
    assert keys(small_model, f"adapter.start={copy}") == first
    flipped = bytearray((copy / "adapter_model.safetensors").read_bytes())
    flipped[-1] ^= 1
    (copy / "adapter_model.safetensors").write_bytes(flipped)
    assert changed(first, keys(small_model, f"adapter.start={copy}")) == ALL


def test_keys_without_a_start_do_not_know_of_it(small_model: Path) -> None:
    """The shape of a run without a start is in its keys as before, so that its finished stages are found."""
    words = ["adapter.r=3", "adapter.alpha=5", "adapter.targets=[down_proj,q_proj]"]
    assert keys(small_model, *words) == keys(small_model, *words, "adapter.rslora=false")
    assert changed(
        keys(small_model, *words), keys(small_model, *words, "adapter.rslora=true")
    ) == set(ALL)


def test_the_config_shows_what_is_taken(start: Path, small_model: Path) -> None:
    config = composed(*WORDS, f"backbone.name={small_model}", f"adapter.start={start}")
    assemble(config, "elrea", CONF)
    told = read_json(start / "adapter_config.json")
    assert config.adapter.r == told["r"] == 3 and config.adapter.alpha == 5
    assert config.adapter.rslora == told["use_rslora"]
    assert list(config.adapter.targets) == ["down_proj", "q_proj"]
    assert assemble(config, "elrea", CONF).lora.r == 3  # as from a run's config.yaml


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("adapter.r=4", "adapter.r=4: contradicts adapter.start, which has 3; leave adapter.r out"),
        ("adapter.alpha=6", "adapter.alpha=6.0: contradicts adapter.start, which has 5.0"),
        ("adapter.targets=[q_proj]", r"adapter.targets=\['q_proj'\]: contradicts adapter.start"),
    ],
)
def test_a_key_that_contradicts_it(start: Path, small_model: Path, word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        keys(small_model, f"adapter.start={start}", word)
    same = ["adapter.r=3", "adapter.alpha=5", "adapter.targets=[q_proj,down_proj]"]
    assert keys(small_model, f"adapter.start={start}", *same)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"use_dora": True}, r"has DoRA \(use_dora\)"),
        ({"bias": "lora_only"}, r"has trained biases \(bias=lora_only\)"),
        ({"lora_bias": True}, r"has LoRA with biases \(lora_bias\)"),
        ({"modules_to_save": ["lm_head"]}, r"\(modules_to_save\)"),
        ({"rank_pattern": {"q_proj": 2}}, r"ranks that differ between layers \(rank_pattern\)"),
        ({"alpha_pattern": {"q_proj": 2}}, r"scales that differ between layers \(alpha_pattern\)"),
        ({"layers_to_transform": [0]}, r"by number \(layers_to_transform\)"),
        ({"layers_to_transform": [0], "layers_pattern": "layers"}, r"by number"),
        ({"exclude_modules": ["q_proj"]}, r"leave out \(exclude_modules\)"),
        ({"trainable_token_indices": [1]}, r"\(trainable_token_indices\)"),
        ({"init_lora_weights": "pissa"}, r"the backbone's own weights \(init_lora_weights=pissa\)"),
    ],
)
def test_other_kinds_of_lora_are_refused_by_name(
    given: dict[str, Any], said: str, small_model: Path, tmp_path: Path
) -> None:
    """The folders are PEFT's own."""
    folder = made(small_model, tmp_path / "lora", **given)
    with pytest.raises(ConfigError, match=said) as caught:
        started(Lora(start=str(folder)))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
        peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
        peft.VeraConfig(target_modules=["q_proj"], r=2),
        peft.LoHaConfig(target_modules=["q_proj"], r=2),
    ],
    ids=lambda config: str(config.peft_type.value),
)
def test_other_types_are_refused_by_name(config: Any, small_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(small_model)
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=rf"is of type {config.peft_type.value} \(peft_type\)"):
        started(Lora(start=str(tmp_path / "other")))


def test_folders_that_are_no_adapter(small_model: Path, start: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(start, pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    (tmp_path / "ensemble").mkdir()
    shutil.copytree(start, tmp_path / "ensemble" / "base")
    for folder, said in (
        (pickled, "has adapter_model.bin only, and pickle is never loaded"),
        (tmp_path / "none", "no such folder"),
        (small_model, "it is a whole model; give it as backbone.name"),
        (tmp_path / "ensemble", r"no adapter_config.json there; is it .*ensemble/base\?"),
    ):
        with pytest.raises(ConfigError, match=said):
            started(Lora(start=str(folder)))
    with pytest.raises(ConfigError, match=r"adapter.start='': give a PEFT folder"):
        Lora(start="")


@pytest.mark.parametrize("alpha", ["1e308", "1e39", "9" * 400, "-1", "true"])
def test_a_scale_that_float32_does_not_have_is_refused(
    alpha: str, small_model: Path, tmp_path: Path
) -> None:
    folder = made(small_model, tmp_path / "lora")
    path = folder / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 5', f'"lora_alpha": {alpha}'))
    with pytest.raises(ConfigError, match=r"its scale is .* \(lora_alpha\)"):
        pipeline(small_model, tmp_path, f"adapter.start={folder}")


def test_a_start_of_another_backbone_is_refused_before_training(
    small_model: Path, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    given = json.loads((small_model / "config.json").read_text())
    for field, value, said in (
        (
            "intermediate_size",
            20,
            r"layers.0.mlp.down_proj.lora_A is \[3, 20\], .* to be \[3, 24\]",
        ),
        ("num_hidden_layers", 3, r"only the start has model.layers.2.mlp.down_proj.lora_A"),
        ("num_hidden_layers", 1, r"only the backbone has model.layers.1.mlp.down_proj.lora_A"),
    ):
        other = tmp_path / f"{field}-{value}"
        LlamaForCausalLM(LlamaConfig(**{**given, field: value})).save_pretrained(other)
        folder = made(other, other / "lora")
        it = pipeline(small_model, tmp_path / "store", f"adapter.start={folder}")
        with pytest.raises(ElreaError, match=said):
            it.check(None)


def test_layers_that_the_backbone_has_not_are_named(small_model: Path, tmp_path: Path) -> None:
    start = made(small_model, tmp_path / "lora")
    config = json.loads((start / "adapter_config.json").read_text())
    (start / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["fc1"]}))
    it = pipeline(small_model, tmp_path / "store", f"adapter.start={start}")
    with pytest.raises(ConfigError, match=r"^adapter.start=.*: adapter.targets: 'fc1' "):
        it.check(None)


def test_a_pattern_of_layers_is_taken_as_their_names(small_model: Path, tmp_path: Path) -> None:
    folder = made(small_model, tmp_path / "lora", target_modules=r".*layers\.1\..*(q|v)_proj")
    it = pipeline(small_model, tmp_path / "store", f"adapter.start={folder}")
    it.check(None)
    it.run("base")
    (row,) = read_json(it.graph.stages["base"].folder / "curve.json")
    examples = it.graph.branches[0].context.encoded_train[0]
    assert row["loss"] == pytest.approx(by_hand(small_model, folder, examples), abs=1e-5)
    after = it.graph.stages["base"].folder / "adapter"
    assert by_hand(small_model, after, examples) < row["loss"]


def test_controls_start_from_it_too(start: Path, small_model: Path) -> None:
    """A control with another rank cannot; it says so instead of starting afresh."""
    both = "evaluation.strategies=[compute_matched,seed_ensemble]"
    plain = [f"adapter.{each}" for each in ("r=3", "alpha=5", "targets=[down_proj,q_proj]")]
    rslora = read_json(start / "adapter_config.json")["use_rslora"]
    before = keys(small_model, *plain, f"adapter.rslora={rslora}", both)
    after = keys(small_model, f"adapter.start={start}", both)
    assert changed(before, after) == set(before)
    with pytest.raises(ConfigError, match=r"^parameter-matched: has rank 6, so it cannot start"):
        keys(small_model, f"adapter.start={start}", "evaluation.strategies=[parameter_matched]")
