"""`elrea merge RUN --out FOLDER` on a finished run: PEFT loads the folder that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from elrea.commands import merge
from elrea.commands.exit import one_line_errors
from elrea.commands.predict import read_prompts
from elrea.method.ensemble.ensemble import Ensemble
from elrea.method.ensemble.folder import read_facts
from elrea.models.device import Device
from elrea.models.lora import load
from tests.cli.commands import Ended

IDS = torch.tensor([[1, 80, 90, 100, 70, 60]])
MEMBERS = ["base", "expert-0", "expert-1"]


@torch.inference_mode()
def by_hand(small_model: Path, folder: Path, shares: dict[str, float]) -> Tensor:
    """Logits of the backbone with every update added to its weights."""
    model = AutoModelForCausalLM.from_pretrained(small_model).eval()
    for name, share in shares.items():
        tensors, lora = load(folder / name)
        for one in (key for key in tensors if ".lora_A." in key):
            layer = one.removeprefix("base_model.model.").partition(".lora_A.")[0]
            b = tensors[one.replace(".lora_A.", ".lora_B.")]
            model.get_submodule(layer).weight += share * lora.scale * b @ tensors[one]
    return model(IDS).logits


@torch.inference_mode()
def by_peft(small_model: Path, out: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(small_model)
    return PeftModel.from_pretrained(model, str(out)).eval()(IDS).logits


@pytest.mark.parametrize(
    ("typed", "shares"),
    [
        ([], dict.fromkeys(MEMBERS, 1 / 3)),
        (["--weights", "base=0.2, expert-1=0.6"], {"base": 0.25, "expert-1": 0.75}),
    ],
)
def test_peft_loads_the_sum(
    typed: list[str],
    shares: dict[str, float],
    whole: Ended,
    small_model: Path,
    tmp_path: Path,
    capsys,
) -> None:
    run, out = whole.folder / "out", tmp_path / "new" / "merged"
    merge.main([str(run), "--out", str(out), *typed])
    wanted = by_hand(small_model, run / "ensemble", shares)
    torch.testing.assert_close(by_peft(small_model, out), wanted, atol=1e-5, rtol=1e-4)
    bare = by_hand(small_model, run / "ensemble", {})
    assert (wanted - bare).abs().max() > 1e-3  # the adapters have an effect
    said = capsys.readouterr().out
    assert f"rank {2 * len(shares)}, exact" in said
    card = (out / "README.md").read_text()
    for name in MEMBERS:
        assert f"| {name} | {shares.get(name, 0):.4f} |" in card
    assert [path.name for path in out.parent.iterdir()] == ["merged"]  # no temporary folder is left


def test_a_lower_rank_reports_the_share_that_it_keeps(
    whole: Ended, small_model: Path, tmp_path: Path, capsys
) -> None:
    run, out = whole.folder / "out", tmp_path / "merged"
    merge.main([str(run / "ensemble"), "--out", str(out), "--rank", "3"])
    assert load(out)[1].r == 3
    assert "rank 3 of 6; it keeps " in capsys.readouterr().out
    assert by_peft(small_model, out).isfinite().all()


def test_prompts_give_their_mean_routing_weights(
    whole: Ended, small_model: Path, tmp_path: Path
) -> None:
    run, out, path = whole.folder / "out", tmp_path / "merged", tmp_path / "prompts.jsonl"
    prompts = ["Say one.", "What comes after Tuesday?", "Add 1 and 2."]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    merge.main([str(run), "--out", str(out), "--prompts", str(path)])
    ensemble = Ensemble.load(
        run / "ensemble", backbone=str(small_model), device=Device("cpu", threads=1)
    )
    weights = torch.tensor([list(route.weights.values()) for route in ensemble.route(prompts)])
    mean = weights.mean(0)
    shares = dict(zip(ensemble.members, (mean / mean.sum()).tolist(), strict=True))
    wanted = by_hand(small_model, run / "ensemble", shares)
    torch.testing.assert_close(by_peft(small_model, out), wanted, atol=1e-5, rtol=1e-4)


def test_prompts_list_their_choices_as_in_training(
    whole: Ended, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out, path = whole.folder / "out", tmp_path / "merged", tmp_path / "prompts.jsonl"
    path.write_text(
        json.dumps({"prompt": "Which comes after Tuesday?", "choices": ["Friday", "noon"]})
    )
    facts = read_facts(run / "ensemble")
    monkeypatch.setattr(merge, "check_arguments", lambda _given: {**facts, "options": "letters"})
    merge.main([str(run), "--out", str(out), "--prompts", str(path)])
    ensemble = Ensemble.load(
        run / "ensemble", backbone=str(small_model), device=Device("cpu", threads=1)
    )
    (route,) = ensemble.route([prompt for _, prompt in read_prompts(path, "letters")])
    total = sum(route.weights.values())
    shares = {name: weight / total for name, weight in route.weights.items()}
    wanted = by_hand(small_model, run / "ensemble", shares)
    torch.testing.assert_close(by_peft(small_model, out), wanted, atol=1e-5, rtol=1e-4)


def test_an_error_is_one_line(whole: Ended, tmp_path: Path, capsys) -> None:
    run = str(whole.folder / "out")
    there = tmp_path / "there"
    there.mkdir()
    for words, line in (
        ([run, "--weights", "expert-2=1"], "no member 'expert-2' (there is: base, expert-0, exper"),
        ([run, "--weights", "base=0,expert-0=0"], "--weights: their sum is 0"),
        ([run, "--weights", "base=1e308,expert-0=1e308"], "--weights: their sum is not finite"),
        ([run, "--weights", "base"], "--weights: 'base': must be member=number"),
        ([run, "--weights", "base=1,"], "--weights: '': must be member=number"),
        ([run, "--weights", "base=-1,expert-0=2"], "--weights: 'base=-1': must be member=number"),
        ([run, "--weights", "base=nan"], "--weights: 'base=nan': must be member=number"),
        ([run, "--weights", "base=1,base=2"], "--weights: the member 'base' appears twice"),
        ([run, "--rank", "7"], "--rank 7: must be 1 to 6"),
        ([run, "--top-k", "1"], "--top-k changes how prompts are routed; give --prompts too"),
        ([run, "--prompts", str(tmp_path / "none")], "none: cannot be read"),
        ([run, "--out", str(there)], "there: exists already; name another folder"),
        ([str(tmp_path)], "no ensemble.json there; give the folder of a finished run"),
    ):
        out = [] if "--out" in words else ["--out", str(tmp_path / "merged")]
        with pytest.raises(SystemExit) as ended, one_line_errors():
            merge.main([*words, *out])
        err = capsys.readouterr().err
        assert ended.value.code == 1 and line in err and len(err.splitlines()) == 1, err
        assert not (tmp_path / "merged").exists()
