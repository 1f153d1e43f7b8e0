"""`elrea merge FOLDER FOLDER ... --out FOLDER` on PEFT folders that PEFT itself made, read by PEFT again."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from elrea.commands import merge
from elrea.commands.exit import one_line_errors
from elrea.models.backbone import TINY
from elrea.reporting.model_card import Model
from tests.cli.commands import ROOT
from tests.models.builders import gpt2, llama

LLAMA: dict[str, dict[str, Any]] = {
    "plain": {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]},
    "rslora": {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]},
    "top": {"r": 1, "lora_alpha": 5, "target_modules": ["q_proj", "o_proj"], "layers_to_transform": [1]},
    "pattern": {
        "r": 2, "lora_alpha": 4, "target_modules": r".*\.(k_proj|up_proj)",
        "rank_pattern": {"k_proj": 3}, "alpha_pattern": {"layers.0.mlp.up_proj": 9},
    },
}  # fmt: skip
"""Settings of adapters that differ in everything a sum has to allow for."""


def made(folder: Path, model: PreTrainedModel, seed: int, **settings: Any) -> Path:
    """A PEFT folder with random A and B."""
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    peft.peft_config["default"].base_model_name_or_path = "someone/model"
    peft.save_pretrained(str(folder))
    return folder


def updates(model: PreTrainedModel, folder: Path) -> dict[str, Tensor]:
    """ΔW of every layer, as PEFT computes it from a folder; layers that change nothing are left out."""
    peft = PeftModel.from_pretrained(model, str(folder))
    layers: dict[str, Any] = {
        name: m for name, m in peft.named_modules() if isinstance(m, LoraLayer)
    }
    found = {name: layer.get_delta_weight("default").detach() for name, layer in layers.items()}
    return {name: delta for name, delta in found.items() if delta.abs().sum() > 0}


def summed(parts: list[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for weight, deltas in parts:
        for name, delta in deltas.items():
            total[name] = total.get(name, torch.zeros_like(delta)) + weight * delta
    return total


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, delta in wanted.items():
        scale = max(1.0, float(delta.abs().max()))
        torch.testing.assert_close(found[name] / scale, delta / scale, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("adapters")
    return {
        name: made(home / name, llama(), seed, **settings)
        for seed, (name, settings) in enumerate(LLAMA.items())
    }


def test_the_sum_is_peft_s_of_adapters_that_differ_in_everything(
    folders: dict[str, Path], tmp_path: Path, capsys
) -> None:
    out, weights = tmp_path / "merged", [0.5, -0.25, 2.0, 1.0]
    words = [str(path) for path in folders.values()]
    merge.main([*words, "--out", str(out), f"--weights={','.join(map(str, weights))}"])
    parts = [updates(llama(), path) for path in folders.values()]
    same(updates(llama(), out), summed(list(zip(weights, parts, strict=True))))
    said = capsys.readouterr().out
    assert (
        "rank 10, exact" in said and "averaging A and B instead would give another update" in said
    )
    assert "off by" not in said, "the layers differ, so that there is no average to compare with"


def test_conv1d_layers_of_gpt2(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
    one = made(tmp_path / "one", gpt2(), 0, r=2, lora_alpha=2, **shape)
    two = made(tmp_path / "two", gpt2(), 1, r=3, lora_alpha=6, **shape)
    merge.main([str(one), str(two), "--out", str(tmp_path / "merged"), "--weights", "two=3"])
    same(updates(gpt2(), tmp_path / "merged"), summed([(3.0, updates(gpt2(), two))]))


def test_peft_s_own_sum_and_the_average_of_the_factors(
    folders: dict[str, Path], tmp_path: Path, capsys
) -> None:
    """PEFT's add_weighted_adapter of combination_type=cat is the sum; averages of A and B are off by what is said."""
    one, other = folders["plain"], made(tmp_path / "other", llama(), 9, **LLAMA["plain"])
    merge.main([str(one), str(other), "--out", str(tmp_path / "merged"), "--weights", "0.7,0.3"])
    peft = PeftModel.from_pretrained(llama(), str(one), adapter_name="one")
    peft.load_adapter(str(other), adapter_name="other")
    peft.add_weighted_adapter(["one", "other"], [0.7, 0.3], "cat", combination_type="cat")
    layers: dict[str, Any] = {
        name: m for name, m in peft.named_modules() if isinstance(m, LoraLayer)
    }
    cat = {name: layer.get_delta_weight("cat").detach() for name, layer in layers.items()}
    same(updates(llama(), tmp_path / "merged"), cat)
    off = 0.0
    for name, layer in layers.items():
        a, b = (
            0.7 * factors["one"].weight + 0.3 * factors["other"].weight
            for factors in (layer.lora_A, layer.lora_B)
        )
        off += float((layer.scaling["one"] * b @ a - cat[name]).square().sum())
    whole = sum(float(delta.square().sum()) for delta in cat.values())
    share = 100 * (off / whole) ** 0.5
    assert share > 10 and f"update, {share:.0f} % of the sum's norm away" in capsys.readouterr().out


def test_a_lower_rank_is_the_nearest_one(folders: dict[str, Path], tmp_path: Path, capsys) -> None:
    pair = [str(folders["plain"]), str(folders["rslora"])]
    merge.main([*pair, "--out", str(tmp_path / "merged"), "--rank", "3"])
    exact = summed([(0.5, updates(llama(), Path(path))) for path in pair])
    kept = whole = 0.0
    nearest = {}
    for name, delta in exact.items():
        u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
        nearest[name] = ((u[:, :3] * s[:3]) @ v[:3]).float()
        kept, whole = kept + float(s[:3].square().sum()), whole + float(s.square().sum())
    same(updates(llama(), tmp_path / "merged"), nearest)
    share = f"it keeps {100 * kept / whole:.2f} % of the sum's squared norm"
    assert share in capsys.readouterr().out and kept < 0.99 * whole
    assert share in (tmp_path / "merged" / "README.md").read_text()


def test_others_may_read_the_files(folders: dict[str, Path], tmp_path: Path) -> None:
    """In a process of its own, whose umask is the usual one."""
    words = [str(folders["plain"]), str(folders["rslora"]), "--out", str(tmp_path / "merged")]
    command = f"umask 022; exec {sys.executable} -m elrea merge {' '.join(words)}"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "merged").iterdir()}
    assert set(modes.values()) == {0o644} and len(modes) == 3
    assert stat.S_IMODE((tmp_path / "merged").stat().st_mode) == 0o755


def test_the_built_in_backbone_is_named_on_cards() -> None:
    assert Model.of(str(TINY)).name == "elrea-tiny" and Model.of("someone/model").hub


@pytest.mark.parametrize("stated", [True, False])
def test_the_card_names_a_licence_only_where_the_backbone_does(
    stated: bool, folders: dict[str, Path], tmp_path: Path
) -> None:
    backbone = tmp_path / "Backbone-1B"
    backbone.mkdir()
    (backbone / "config.json").write_text("{}")
    if stated:
        (backbone / "README.md").write_text(
            "---\nlicense: other\nlicense_name: own-terms\n---\n# x\n"
        )
    out = tmp_path / "merged"
    merge.main(
        [str(folders["plain"]), str(folders["top"]), "--out", str(out), "--backbone", str(backbone)]
    )
    card = (out / "README.md").read_text()
    assert ("license: other\nlicense_name: own-terms" in card) == stated
    assert ("state no licence" in card) != stated
    assert "Backbone-1B" in card and str(tmp_path) not in card
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        backbone
    )


def test_what_is_no_plain_lora_is_refused_by_name(
    folders: dict[str, Path], tmp_path: Path, capsys
) -> None:
    plain, out = folders["plain"], tmp_path / "merged"

    def other(name: str, **changes: Any) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for path in plain.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        config = json.loads((plain / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        return str(folder)

    ia3 = get_peft_model(llama(), IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    ia3.save_pretrained(str(tmp_path / "ia3"))
    bare = tmp_path / "bare"
    bare.mkdir()
    gpt = made(tmp_path / "wide", llama(), 0, r=2, lora_alpha=2, target_modules=["q_proj"])
    from safetensors.torch import load_file, save_file

    tensors = {
        name: torch.cat([tensor, tensor], 1) if "_A." in name else tensor
        for name, tensor in load_file(gpt / "adapter_model.safetensors").items()
    }
    save_file(tensors, gpt / "adapter_model.safetensors")
    for words, line in (
        ([other("dora", use_dora=True)], "dora: has DoRA (use_dora)"),
        ([str(tmp_path / "ia3")], "ia3: is of type IA3 (peft_type)"),
        ([other("bias", bias="all")], "bias: has trained biases (bias=all)"),
        ([other("pissa", init_lora_weights="pissa")], "(init_lora_weights=pissa)"),
        ([other("rank", r=3)], "for rank 3"),
        ([other("named", base_model_name_or_path="o/m")], "name different backbones (o/m, someone/model)"),
        ([str(gpt)], "layers.0.self_attn.q_proj has 16 inputs in plain and 32 in wide"),
        ([str(bare)], "bare: no adapter_config.json there"),
        ([str(tmp_path / "nowhere")], "nowhere: no such folder"),
        ([str(plain)], "plain: given twice"),
        ([str(folders["top"]), "--weights", "1"], "--weights: 1 numbers for 2 folders"),
        ([str(folders["top"]), "--weights", "1,x"], "--weights: 'x' is not a finite number"),
        ([str(folders["top"]), "--weights", "plain=1,other=2"], "no folder 'other' (there is: plain, top)"),
        ([str(folders["top"]), "--weights", "0,0"], "--weights: all are 0"),
        ([str(folders["top"]), "--rank", "4"], "--rank 4: must be 1 to 3"),
        ([str(folders["top"]), "--prompts", "x.jsonl"], "--prompts: routes prompts"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended, one_line_errors():
            merge.main([str(plain), *words, "--out", str(out)])
        err = capsys.readouterr().err
        assert ended.value.code == 1 and line in err and len(err.splitlines()) == 1, err
        assert not out.exists()
