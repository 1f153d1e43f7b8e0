"""Embeddings: means of the backbone's states, and a sentence-transformers model made by the test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from elrea.data.prompts import Encoded
from elrea.errors import BackboneError, ConfigError
from elrea.method.features.embedding import Embedding
from elrea.method.features.gradient import extract
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, set_state
from tests.method.features import by_hand
from tests.models.builders import BUILDERS, PAD, random_adapter
from tests.small_models import byte_tokenizer

LORA = Lora(r=2)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_is_the_mean_of_the_last_hidden_states_without_the_adapter(kind: str) -> None:
    prompts = [*by_hand.prompts(7), Encoded("none", (), ())]
    model = attach(BUILDERS[kind](), LORA, 0)
    set_state(model, random_adapter(kind, LORA, 1)[0])
    features = Embedding(normalise=False, batch_size=3)
    told: list[int] = []
    got = extract(model, [], prompts, features, pad_id=PAD, advance=told.append)
    bare = BUILDERS[kind]()
    for row, prompt in zip(got[:-1], prompts[:-1], strict=True):
        ids = torch.tensor([prompt.prompt])
        states = bare(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(row, states[0].mean(0), rtol=1e-4, atol=1e-5)
    assert not got[-1].any() and sum(told) == 8
    unit = extract(model, [], prompts[:-1], Embedding(), pad_id=PAD)
    torch.testing.assert_close(unit, torch.nn.functional.normalize(got[:-1], dim=1))
    assert not features.from_base and features.passes(5) == 1


def model_of_sentences(folder: Path) -> Path:
    """A BERT of one layer that knows nothing, with mean pooling."""
    pytest.importorskip("sentence_transformers")
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=300, hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_a_model_of_sentences_reads_the_prompts_words(tmp_path: Path) -> None:
    folder = model_of_sentences(tmp_path)
    tokenizer, texts = byte_tokenizer(), ["Why is it so?", "What of it", "Why is it so?"]
    ids = [tuple(tokenizer(f"<s>{text}")["input_ids"]) for text in texts]
    prompts = [Encoded(str(i), row, ()) for i, row in enumerate(ids)]
    model = attach(BUILDERS["llama"](), LORA, 0)
    features = Embedding(model=str(folder), batch_size=2)
    got = extract(model, [], prompts, features, pad_id=PAD, tokenizer=tokenizer)
    from sentence_transformers import SentenceTransformer

    wanted = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    torch.testing.assert_close(got, torch.from_numpy(wanted), rtol=1e-4, atol=1e-5)


def test_foreign_code_and_pickles_are_refused(tmp_path: Path) -> None:
    model = attach(BUILDERS["llama"](), LORA, 0)

    def said(folder: Path) -> str:
        with pytest.raises(BackboneError) as caught:
            Embedding(model=str(folder)).reader(model, [], PAD, byte_tokenizer())
        return str(caught.value)

    assert "no modules.json" in said(tmp_path)
    listing = tmp_path / "modules.json"
    listing.write_text(json.dumps([{"type": "mine.Evil", "path": ""}]))
    assert "'mine.Evil' is not one of sentence-transformers'" in said(tmp_path)
    # A part of the library's own that imports whatever a further file names.
    listing.write_text(json.dumps([{"type": "sentence_transformers.models.Router", "path": ""}]))
    assert "Router' is not one of" in said(tmp_path)
    listing.write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "d"}]))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text('{"activation_function": "os.getcwd"}')
    assert "'os.getcwd' is no activation of torch" in said(tmp_path)
    (tmp_path / "d" / "config.json").unlink()
    (tmp_path / "d" / "pytorch_model.bin").write_bytes(b"")
    assert "only safetensors are loaded" in said(tmp_path)


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    (tmp_path / "modules.json").write_text("[]")
    model = attach(BUILDERS["llama"](), LORA, 0)
    with pytest.raises(ConfigError, match=r"pip install 'elrea\[embedding\]'"):
        Embedding(model=str(tmp_path)).reader(model, [], PAD, byte_tokenizer())


def test_the_models_folder_may_be_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[]")
    short, long = Embedding(model="~/model"), Embedding(model=str(tmp_path / "model"))
    assert short.identity() == long.identity()
    assert short._folder() == long._folder() == tmp_path / "model"


def test_the_models_identity_is_its_content(tmp_path: Path) -> None:
    assert Embedding().identity() == {}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    one, two = (Embedding(model=str(tmp_path / name)).identity() for name in ("a", "b"))
    assert one == two
    (tmp_path / "b" / "config.json").write_text("{ }")
    assert Embedding(model=str(tmp_path / "b")).identity() != one
