"""Backbones that are no causal language model, or whose tokenizer does not fit: one line, before training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from elrea.errors import BackboneError, DataError
from elrea.models.backbone import Pretrained
from elrea.models.causality import check_causal
from elrea.models.device import Device
from elrea.models.vocabulary import Vocabulary
from tests.models.builders import BUILDERS, filled
from tests.small_models import byte_tokenizer

CPU = Device("cpu")
ROWS = 259
IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
WIDE: dict[str, Any] = {"vocab_size": ROWS, "hidden_size": 32, "num_hidden_layers": 2, **IDS}
BERT: dict[str, Any] = {**WIDE, "num_attention_heads": 4, "intermediate_size": 48}
LLAMA: dict[str, Any] = {**BERT, "num_key_value_heads": 2}


def bert() -> Any:
    # With the usual weights of 0.02 a later token moves a logit by a thousandth, which may be rounding.
    return hf.BertForMaskedLM(hf.BertConfig(**BERT, initializer_range=0.1))


def modernbert() -> Any:
    return hf.ModernBertForMaskedLM(hf.ModernBertConfig(**BERT))


def t5() -> Any:
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=ROWS, **sizes, **IDS))


def classifier() -> Any:
    return hf.LlamaForSequenceClassification(hf.LlamaConfig(**LLAMA))


def body() -> Any:
    return hf.LlamaModel(hf.LlamaConfig(**LLAMA))


def two_way() -> Any:
    config = hf.Gemma3TextConfig(**LLAMA, head_dim=8, use_bidirectional_attention=True)
    return hf.Gemma3ForCausalLM(config)


def xlnet() -> Any:
    """Its configuration does not say that tokens see later ones."""
    return hf.XLNetLMHeadModel(
        hf.XLNetConfig(vocab_size=ROWS, d_model=32, n_layer=2, n_head=4, d_inner=48, **IDS)
    )


def saved(folder: Path, model: Any, tokenizer: bool = True) -> Path:
    filled(model).save_pretrained(folder)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (bert, "BertForMaskedLM is an encoder"),
        (modernbert, "ModernBertForMaskedLM is an encoder"),
        (t5, "T5ForConditionalGeneration is an encoder with a decoder"),
        (classifier, "LlamaForSequenceClassification is a classifier or reward model"),
        (two_way, "use_bidirectional_attention is true"),
        (body, "LlamaModel has no output head"),
    ],
)
def test_another_kind_of_model_is_refused_by_its_config(
    build: Callable[[], Any], said: str, tmp_path: Path
) -> None:
    pretrained = Pretrained(str(saved(tmp_path / "other", build())))
    with pytest.raises(BackboneError, match=said) as caught:
        pretrained.check()
        pretrained.length()  # asked by every plan
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    with pytest.raises(BackboneError, match=said):
        pretrained.load(CPU)


def test_an_encoder_that_its_config_hides_is_found_by_its_logits(tmp_path: Path) -> None:
    pretrained = Pretrained(str(saved(tmp_path / "hidden", xlnet())))
    pretrained.check()
    with pytest.raises(BackboneError, match="logits depend on later tokens"):
        pretrained.load(CPU)


@pytest.mark.parametrize("build", [bert, two_way])
def test_logits_tell_encoders_from_causal_models(build: Callable[[], Any]) -> None:
    tokenizer = byte_tokenizer()
    whole = Vocabulary.of(tokenizer, ROWS)
    with pytest.raises(BackboneError, match="logits depend on later tokens"):
        check_causal(build().eval(), tokenizer, whole, "it")
    decoder = hf.BertLMHeadModel(hf.BertConfig(**BERT, is_decoder=True))
    check_causal(decoder.eval(), tokenizer, whole, "it")


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_models_pass(kind: str, dtype: torch.dtype) -> None:
    """Their vocabulary is smaller than the tokenizer's."""
    tokenizer, built = byte_tokenizer(), BUILDERS[kind]()
    model: Any = built
    model.to(dtype)
    check_causal(model, tokenizer, Vocabulary.of(tokenizer, 40), "it")


def test_a_decoder_of_an_encoders_family_is_taken(tmp_path: Path) -> None:
    decoder = hf.BertLMHeadModel(hf.BertConfig(**BERT, is_decoder=True))
    pretrained = Pretrained(str(saved(tmp_path / "decoder", decoder)))
    pretrained.check()
    assert pretrained.load(CPU).model.config.is_decoder


def listed(folder: Path, files: dict[str, Any]) -> Pretrained:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return Pretrained(str(folder))


CONFIG: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
MODEL = {"config.json": CONFIG, "model.safetensors": "", "tokenizer.json": "{}"}
ADAPTER = {
    "adapter_config.json": {"base_model_name_or_path": "org/model"},
    "adapter_model.safetensors": "",
}


def quantised(method: str) -> dict[str, Any]:
    return {**MODEL, "config.json": {**CONFIG, "quantization_config": {"quant_method": method}}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (ADAPTER, "is an adapter, not a model; give backbone.name=org/model and adapter.start="),
        ({**MODEL, **ADAPTER}, "adapter_config.json beside the model"),
        ({"model.Q4_K_M.gguf": ""}, "GGUF files only; give backbone.name one of them"),
        ({"config.json": CONFIG, "model.safetensors": ""}, "has no tokenizer"),
        ({**MODEL, "config.json": {"model_type": "llada"}}, "llada is a diffusion model"),
        ({**MODEL, "config.json": {"model_type": "qwen2", "is_causal": False}}, "is_causal is false"),
        ({**MODEL, "config.json": {"architectures": ["FooRewardModel"]}}, "is a reward model"),
        ({**MODEL, "config.json": {"architectures": ["FooModel"]}, "modules.json": "[]"}, "embeddings"),
        (quantised("vptq"), "quantised \\(vptq\\), and what reads them is not installed: pip install vptq"),
    ],
)  # fmt: skip
def test_names_of_files_tell_what_a_folder_is(
    files: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=said) as caught:
        listed(tmp_path / "folder", files).check()
    assert "\n" not in str(caught.value)


def test_ordinary_folders_pass(small_model: Path, tmp_path: Path) -> None:
    Pretrained(str(small_model)).check()
    listed(
        tmp_path / "sentencepiece", {**MODEL, "tokenizer.json": "{}", "tokenizer.model": ""}
    ).check()
    llava = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}
    listed(tmp_path / "llava", {**MODEL, "config.json": llava}).check()
    chat = {"model_type": "chatglm", "architectures": ["ChatGLMModel"]}
    listed(tmp_path / "chat", {**MODEL, "config.json": chat}).check()


def test_a_quantised_folder_is_not_quantised_again(tmp_path: Path) -> None:
    made = listed(tmp_path / "folder", quantised("gptq"))
    with pytest.raises(BackboneError, match=r"quantise=4bit: .* quantised already \(gptq\)"):
        Pretrained(made.name, quantise="4bit").check()


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    for name, said in (("model.gguf", "not a GGUF file"), ("model.safetensors", "is a file")):
        (tmp_path / name).write_text("")
        with pytest.raises(BackboneError, match=said):
            Pretrained(str(tmp_path / name)).check()


def test_what_the_hub_says_of_a_model_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Api:
        def model_info(self, name: str, revision: str | None) -> object:
            files = ["config.json", "tokenizer.json", "model.safetensors"]
            if name == "org/adapter":
                files = [*ADAPTER]
            siblings = [type("File", (), {"rfilename": file})() for file in files]
            facts = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
            return type("Info", (), {"sha": "s", "siblings": siblings, "config": facts})()

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(BackboneError, match=r"^org/t5: .* is an encoder with a decoder"):
        Pretrained("org/t5").check()
    with pytest.raises(BackboneError, match=r"^org/adapter: is an adapter"):
        Pretrained("org/adapter").check()


def test_a_whole_commit_needs_no_hub() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert Pretrained("org/model", revision=commit).identity() == f"org/model@{commit}"


def test_home_folders_slashes_and_links(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(small_model, tmp_path / "models" / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "models" / "mine")
    wanted = Pretrained(str(small_model)).identity()
    for name, shown in (("~/models/mine", "mine"), ("~/models/mine/", "mine"), ("~/link", "link")):
        found = Pretrained(name)
        assert (found.identity(), found.shown_name) == (wanted, shown)
        assert found.load(CPU).name == shown
    monkeypatch.chdir(tmp_path / "models" / "mine")
    assert Pretrained(".").shown_name == "mine"
    with pytest.raises(BackboneError, match=r"^~/none: no such folder"):
        Pretrained("~/none").identity()


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A padding token and a marker were added to the tokenizer; the embedding was not resized."""
    folder = tmp_path_factory.mktemp("models") / "padded"
    config = hf.LlamaConfig(**{**LLAMA, "pad_token_id": None})
    saved(folder, hf.LlamaForCausalLM(config), tokenizer=False)
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens(["<|odd|>"])
    tokenizer.save_pretrained(folder)
    return folder


def test_padding_beyond_the_embedding(padded: Path) -> None:
    backbone = Pretrained(str(padded)).load(CPU)
    assert backbone.tokenizer.pad_token_id == ROWS
    assert backbone.pad_id == 1, "the end of text stands in"
    assert backbone.vocabulary == Pretrained(str(padded)).vocabulary(backbone.tokenizer)
    assert backbone.vocabulary.outside == {ROWS: "[PAD]", ROWS + 1: "<|odd|>"}
    backbone.tokenizer.eos_token = "<|odd|>"
    assert backbone.pad_id == 0


def test_tokens_beyond_the_embedding_are_refused_by_name() -> None:
    vocabulary = Vocabulary(4, {5: "<odd>"})
    vocabulary.check([0, 3], "one")
    vocabulary.check([], "none")
    with pytest.raises(DataError, match=r"^one: token '<odd>' \(id 5\) is beyond the 4 rows"):
        vocabulary.check([0, 5], "one")
    with pytest.raises(DataError, match=r"^one: token id 9 .* backbone.use_chat_template=false"):
        vocabulary.check([0, 9], "one", chat=True)
    Vocabulary(None).check([10**9], "one")


def test_an_empty_tokenizer_is_refused(small_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_model, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match=r"^.*copy: ") as caught:
        Pretrained(str(folder)).tokenizer()
    assert "\n" not in str(caught.value)
