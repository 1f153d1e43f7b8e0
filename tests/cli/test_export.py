"""`elrea export RUN --to FOLDER --as ...` on a finished run, held against PEFT, transformers and the run's ensemble."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from elrea.commands import export
from elrea.commands.exit import one_line_errors
from elrea.errors import StoreError
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from tests.cli.commands import Ended

IDS = torch.tensor([[1, 80, 90, 100, 70, 60]])
MEMBERS = ["base", "expert-0", "expert-1"]


@torch.inference_mode()
def merged_by_peft(small_model: Path, adapter: Path) -> Tensor:
    """Logits of PEFT's own merge_and_unload."""
    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()(IDS).logits


@torch.inference_mode()
def logits(folder: Path) -> Tensor:
    return AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits


def test_a_peft_folder_for_each_cluster(
    whole: Ended, small_model: Path, tmp_path: Path, capsys
) -> None:
    run, to = whole.folder / "out", tmp_path / "new" / "served"
    export.main([str(run), "--to", str(to), "--as", "peft"])
    assert f"expert-1  {to / 'expert-1'}" in capsys.readouterr().out
    for name in MEMBERS:
        found, wanted = (merged_by_peft(small_model, at / name) for at in (to, run / "ensemble"))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
        assert f"`{name}` on small" in (to / name / "README.md").read_text()
    routing = json.loads((to / "routing.json").read_text())
    assert [(a["id"], a["name"], a["path"]) for a in routing["adapters"]] == [
        (n, name, name) for n, name in enumerate(MEMBERS)
    ]
    assert routing["nearest"] == ["expert-0", "expert-1"] and not routing["learned"]
    centroids = load_file(to / routing["files"][0])["centroids"]
    saved = load_file(run / "ensemble" / "routing" / "centroids.safetensors")["centroids"]
    assert torch.equal(centroids, saved)
    card = (to / "README.md").read_text()
    examples = json.loads((run / "summary.json").read_text())["examples"]
    assert f"{examples['train']} training examples (0 left out" in card
    assert "| elrea |" in card and "rank 2" in card and "state no licence" in card
    assert str(small_model) not in card and str(run) not in card
    assert "has not been scored by itself" in card
    with pytest.raises(StoreError, match="served: an export, which has adapters but no ensemble"):
        export.main([str(to), "--to", str(tmp_path / "again"), "--as", "gguf"])
    assert [path.name for path in to.parent.iterdir()] == ["served"]


def test_whole_models_have_the_logits_of_peft_s_merge(
    whole: Ended, small_model: Path, tmp_path: Path
) -> None:
    run = whole.folder / "out"
    export.main([str(run), "--to", str(tmp_path / "one"), "--as", "merged", "--only", "expert-1"])
    wanted = merged_by_peft(small_model, run / "ensemble" / "expert-1")
    torch.testing.assert_close(logits(tmp_path / "one" / "expert-1"), wanted, atol=1e-5, rtol=0)
    assert (wanted - logits(small_model)).abs().max() > 1e-3  # the adapter has an effect
    text = "What comes after Tuesday?"
    own, wanted_ids = (
        AutoTokenizer.from_pretrained(at)(text)["input_ids"]
        for at in (tmp_path / "one" / "expert-1", small_model)
    )
    assert own == wanted_ids
    weights = ["--weights", "base=1,expert-0=3"]
    for form in ("peft", "merged"):
        export.main([str(run), "--to", str(tmp_path / form), "--as", form, *weights])
    wanted = merged_by_peft(small_model, tmp_path / "peft")
    torch.testing.assert_close(logits(tmp_path / "merged"), wanted, atol=1e-5, rtol=0)


def test_weights_are_rounded_once(whole: Ended, small_model: Path, tmp_path: Path) -> None:
    adapter, out = whole.folder / "out" / "ensemble" / "expert-0", tmp_path / "half"
    words = ["--as", "merged", "--dtype", "bfloat16", "--backbone", str(small_model)]
    export.main([str(adapter), "--to", str(out), *words])
    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32)
    wanted = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    found = load_file(out / "model.safetensors")
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, wanted[name].bfloat16()), name
    assert "A whole model" in (out / "README.md").read_text()


def test_gguf_with_the_scales_of_moe_routing(
    whole: Ended, small_model: Path, tmp_path: Path
) -> None:
    gguf = pytest.importorskip("gguf")
    run, to, path = whole.folder / "out", tmp_path / "llama", tmp_path / "prompts.jsonl"
    prompts = ["Say one.", "What comes after Tuesday?"]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    export.main([str(run), "--to", str(to), "--as", "gguf", "--prompts", str(path)])
    for name in MEMBERS:
        reader = gguf.GGUFReader(to / f"{name}.gguf")
        assert reader.fields["general.name"].contents() == name
    scales = json.loads((to / "scales.json").read_text())
    assert [each["scale"] for each in scales["alone"]["expert-1"]] == [0, 0, 1]
    assert [each["scale"] for each in scales["uniform"]] == [1 / 3] * 3
    lines = [json.loads(line) for line in (to / "routes.jsonl").read_text().splitlines()]
    ensemble = Ensemble.load(
        run / "ensemble", backbone=str(small_model), device=Device("cpu", threads=1)
    )
    for line, route in zip(lines, ensemble.route(prompts), strict=True):
        total = sum(route.weights.values())
        wanted = [route.weights[name] / total for name in MEMBERS]
        assert line["nearest"] == f"expert-{route.nearest}"
        assert [each["id"] for each in line["lora"]] == [0, 1, 2]
        assert [each["scale"] for each in line["lora"]] == pytest.approx(wanted, abs=1e-6)
    card = (to / "README.md").read_text()
    assert "--lora base.gguf --lora expert-0.gguf --lora expert-1.gguf --lora-init" in card


def test_an_error_is_one_line(whole: Ended, small_model: Path, tmp_path: Path, capsys) -> None:
    run, to = str(whole.folder / "out"), str(tmp_path / "to")
    adapter = str(whole.folder / "out" / "ensemble" / "base")
    other = tmp_path / "other"
    other.mkdir()
    wide = tmp_path / "wide"
    config = LlamaConfig.from_pretrained(small_model, hidden_size=32, head_dim=8)
    LlamaForCausalLM(config).save_pretrained(wide)
    AutoTokenizer.from_pretrained(small_model).save_pretrained(wide)
    neox = {
        "model_type": "gpt_neox",
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    (other / "config.json").write_text(json.dumps(neox))
    for words, line in (
        ([run, "--as", "merged"], "--as merged: writes a whole model per member"),
        ([run, "--as", "peft", "--only", "expert-7"], "--only: no member 'expert-7'"),
        ([run, "--as", "peft", "--rank", "1"], "--rank: needs --weights"),
        ([run, "--as", "peft", "--dtype", "float16"], "--dtype: needs --as merged"),
        ([run, "--as", "peft", "--top-k", "1"], "--top-k: needs --prompts"),
        ([run, "--as", "peft", "--weights", "base=1", "--only", "base"], "leave out --only"),
        ([run, "--as", "merged", "--only", "base", "--dtype", "int8"], "--dtype int8: must be one"),
        ([adapter, "--as", "gguf", "--only", "base"], "base is one adapter; give the folder of a"),
        ([adapter, "--as", "gguf", "--backbone", str(other)], "other: an adapter of 'gpt_neox'"),
        ([adapter, "--as", "merged", "--backbone", str(wide)], "is [32, 24] in the backbone and [16, 24]"),
        ([str(tmp_path), "--as", "peft"], "no ensemble.json there"),
        ([run, "--as", "peft", "--to", str(tmp_path)], "exists already; name another folder"),
    ):  # fmt: skip
        where = [] if "--to" in words else ["--to", to]
        with pytest.raises(SystemExit) as ended, one_line_errors():
            export.main([*words, *where])
        err = capsys.readouterr().err
        assert ended.value.code == 1 and line in err and len(err.splitlines()) == 1, err
        assert not list(tmp_path.glob("to*")), "nothing is left of it"
