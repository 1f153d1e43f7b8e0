"""Loading a backbone from a model folder, and the errors of folders that cannot be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from elrea.errors import BackboneError
from elrea.models.backbone import Backbone, Pretrained, Tiny
from elrea.models.device import Device
from tests.models.builders import VOCABULARY, llama

CPU = Device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A valid model folder: a two-layer Llama and a word tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "small-llama"
    llama().save_pretrained(folder)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w7").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / made.name))


def test_the_model_comes_frozen_and_in_eval_mode(made: Path) -> None:
    backbone = Pretrained(str(made)).load(CPU)
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
    for name, value in llama().state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], value), name
    assert backbone.tokenizer("w3 w5")["input_ids"] == [3, 5]
    assert backbone.name == "small-llama", "no path of this machine"
    half = Pretrained(str(made), dtype="bfloat16").load(CPU)
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}


def test_pad_id_falls_back(made: Path) -> None:
    backbone = Pretrained(str(made)).load(CPU)
    assert backbone.tokenizer.pad_token_id is None and backbone.pad_id == 7
    backbone.tokenizer.pad_token = "w4"
    assert backbone.pad_id == 4
    backbone.tokenizer.pad_token = backbone.tokenizer.eos_token = None
    assert Backbone(backbone.model, backbone.tokenizer, "x").pad_id == 0


def test_length_is_cut_to_the_models_context(made: Path) -> None:
    assert Pretrained(str(made)).length() == 64
    assert Pretrained(str(made), max_length=20).length() == 20


def test_identity_depends_on_the_files_contents(folder: Path, tmp_path: Path) -> None:
    before = Pretrained(str(folder)).identity()
    assert len(before) == 64
    twin = Path(shutil.copytree(folder, tmp_path / "other-name"))
    assert Pretrained(str(twin)).identity() == before, "the folder's name does not count"
    (twin / "README.md").write_text("words")
    assert Pretrained(str(twin)).identity() == before
    seen = {before}
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        path = twin / name
        path.write_bytes(path.read_bytes() + b" ")
        seen.add(Pretrained(str(twin)).identity())
    (twin / "chat_template.jinja").write_text("{{ messages }}")
    seen.add(Pretrained(str(twin)).identity())
    assert len(seen) == 5, "a changed file did not change the identity"
    assert Pretrained(str(twin), dtype="bfloat16").identity() in seen


@pytest.mark.parametrize(
    "name",
    [
        "qwen.tiktoken",
        "source.spm",
        "vocab.bpe",
        "bpe.codes",
        "sentencepiece.vocab",
        "additional_chat_templates/default.jinja",
    ],
)
def test_identity_depends_on_whatever_holds_a_tokenizer(
    name: str, folder: Path, tmp_path: Path
) -> None:
    twin = Path(shutil.copytree(folder, tmp_path / "twin"))
    seen = {Pretrained(str(twin)).identity()}
    (twin / name).parent.mkdir(exist_ok=True)
    for text in ("a b", "a c"):
        (twin / name).write_text(text)
        seen.add(Pretrained(str(twin)).identity())
    assert len(seen) == 3


def test_code_of_a_tokenizer_counts_only_where_it_is_run(folder: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(folder, tmp_path / "twin"))
    before = Pretrained(str(twin)).identity()
    (twin / "tokenization_own.py").write_text("")
    (twin / "tokenizer").mkdir()
    assert Pretrained(str(twin)).identity() == before
    assert Pretrained(str(twin), trust_remote_code=True).identity() != before


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_config, r"no config\.json there"),
        (broken_config, r"config\.json: no valid JSON"),
        (only_pickled, r"no \.safetensors file there"),
    ],
)
def test_a_folder_with_a_missing_or_broken_file(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(BackboneError, match=said) as caught:
        Pretrained(str(folder)).identity()
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BackboneError, match=r"^.*small-llama: .*$"):
        Pretrained(str(folder)).load(CPU)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BackboneError, match=r"small-llama: ") as caught:
        Pretrained(str(folder)).load(CPU)
    assert "\n" not in str(caught.value)


def more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 9}))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def odd_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": "two"}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(more_layers, "those layers would be random"), (no_tokenizer, ""), (odd_size, "")],
)
def test_a_folder_whose_files_do_not_match(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(BackboneError, match=f"small-llama: .*{said}") as caught:
        Pretrained(str(folder)).load(CPU)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    for ask in (lambda p: p.load(CPU), lambda p: p.length()):
        with pytest.raises(BackboneError, match=r"small-llama: .*nonesuch") as caught:
            ask(Pretrained(str(folder)))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "../nowhere", "a/b/c"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(BackboneError, match="no such folder") as caught:
        Pretrained(name).identity()
    assert str(caught.value).startswith(name)


def test_no_name_and_no_dtype(made: Path) -> None:
    with pytest.raises(BackboneError, match=r"needs backbone\.name"):
        Pretrained().identity()
    with pytest.raises(BackboneError, match=r"backbone\.dtype=float8"):
        Pretrained(str(made), dtype="float8").load(CPU)


def test_a_hub_name_is_keyed_by_its_commit(monkeypatch) -> None:
    import huggingface_hub

    class Api:
        def model_info(self, name: str, revision: str | None) -> object:
            if name == "some/absent":
                raise OSError("offline\nsecond line")
            return type("Info", (), {"sha": f"sha-of-{revision}"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert Pretrained("some/model").identity() == "some/model@sha-of-None"
    assert Pretrained("some/model", revision="v2").identity() == "some/model@sha-of-v2"
    with pytest.raises(BackboneError, match=r"some/absent: no such folder, .* offline;") as caught:
        Pretrained("some/absent").identity()
    assert "\n" not in str(caught.value)


def test_a_models_code_is_not_run_by_default(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}
    own = {**config, "model_type": "own-kind", "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(own))
    (folder / "own.py").write_text("raise SystemExit('code that came with a model was run')\n")
    with pytest.raises(BackboneError, match="contains custom code"):
        Pretrained(str(folder)).load(CPU)


def test_the_built_in_model_needs_no_name() -> None:
    assert Tiny().shown_name == "elrea-tiny"
    assert Path(Tiny().name).parts[-3:] == ("models", "tiny", "weights")
    assert Tiny().max_length >= 1024


@pytest.mark.parametrize(
    "part", ["../outside.safetensors", "/etc/passwd", "..", "sub/a.safetensors"]
)
def test_an_index_that_leaves_the_folder_is_refused(folder: Path, part: str) -> None:
    """The named file has valid weights, which transformers would load."""
    shutil.copyfile(folder / "model.safetensors", folder.parent / "outside.safetensors")
    names = llama().state_dict()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model.safetensors")}
    index["weight_map"]["model.norm.weight"] = part
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    for read in (lambda: Pretrained(str(folder)).load(CPU), Pretrained(str(folder)).identity):
        with pytest.raises(BackboneError, match="which is not in that folder") as caught:
            read()
        assert str(path) in str(caught.value) and repr(part) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "{" * 5000])
def test_an_invalid_index_is_an_error_of_one_line(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BackboneError, match="not an index of weights") as caught:
        Pretrained(str(folder)).identity()
    assert "\n" not in str(caught.value)
