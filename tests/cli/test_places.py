"""A finished ensemble finds its backbone again: where it was, after a move, by PEFT alone; and nothing else for it."""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM

from elrea.commands.arguments import ensemble_parser
from elrea.commands.chat import main as chat
from elrea.commands.merge import main as merge
from elrea.commands.predict import main as predict
from elrea.errors import BackboneError, DataError
from elrea.method.ensemble.ensemble import Ensemble
from elrea.method.ensemble.places import find_backbone, place_of, point
from elrea.models.backbone import Pretrained, Tiny
from elrea.models.device import Device
from elrea.store.files import read_json, with_checksum, write_json
from tests.cli.commands import EXAM, QUIET, TINY, Ended, run
from tests.models.test_model_kind import bert, saved, xlnet
from tests.small_models import byte_tokenizer, small_llama

CPU = Device("cpu", threads=1)
IDS = torch.arange(40, 56).reshape(2, 8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def out(whole: Ended) -> Path:
    return whole.folder / "out"


def reseal(ensemble: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Changes what `ensemble.json` says of the backbone."""
    facts = read_json(ensemble / "ensemble.json")
    how(facts["backbone"])
    write_json(ensemble / "ensemble.json", with_checksum(facts))


def place(found: Ensemble) -> Path:
    return Path(found.saved.backbone.location).resolve()


def test_what_is_written(out: Path, small_model: Path) -> None:
    told = read_json(out / "ensemble" / "ensemble.json")["backbone"]
    assert told["name"] == "small" and told["absolute"] == str(small_model)
    assert told["fingerprint"] == Pretrained(str(small_model)).identity()


def test_where_the_run_had_it(
    out: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every way to write the folder, from another working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(out.parent))
    (tmp_path / "link").symlink_to(out)
    wanted = small_model.resolve()
    for given in (out, out / "ensemble", f"{out}/", "link", "link/ensemble/", "~/out"):
        assert place(Ensemble.load(given, device=CPU)) == wanted


def moved(out: Path, small_model: Path, folder: Path, model: str) -> Path:
    """The run and its backbone, as if both were moved from a folder that is gone; the run's copy."""
    run = folder / "project" / "outputs" / "day" / "time"
    shutil.copytree(out / "ensemble", run / "ensemble")
    shutil.copytree(small_model, folder / model)
    reseal(run / "ensemble", lambda told: told.update(absolute="/gone/project/models/small"))
    return run


@pytest.mark.parametrize("model", ["project/models/small", "models/small", "project/outputs/small"])
def test_after_both_were_moved(model: str, out: Path, small_model: Path, tmp_path: Path) -> None:
    run = moved(out, small_model, tmp_path, model)
    found = Ensemble.load(run, device=CPU)
    assert place(found) == (tmp_path / model).resolve()
    assert found.route(["a prompt"]) == Ensemble.load(out, device=CPU).route(["a prompt"])


def test_in_the_working_folder(
    out: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = moved(out, small_model, tmp_path, "elsewhere/models/small")
    with pytest.raises(BackboneError, match=r"'small' is needed: give its folder, as backbone= or"):
        Ensemble.load(run, device=CPU)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert place(Ensemble.load(run, device=CPU)) == (tmp_path / "elsewhere/models/small").resolve()
    reseal(run / "ensemble", lambda told: told.update(relative="../kept/as-given"))
    shutil.move(tmp_path / "elsewhere" / "models" / "small", tmp_path / "kept" / "as-given")
    assert place(Ensemble.load(run, device=CPU)) == (tmp_path / "kept" / "as-given").resolve()


def test_another_model_in_its_place_is_not_taken(
    out: Path, small_model: Path, tmp_path: Path
) -> None:
    run = moved(out, small_model, tmp_path, "models/small")
    (tmp_path / "models" / "small" / "tokenizer.json").write_text("{}")
    with pytest.raises(BackboneError, match=r"models/small: of another model\)") as caught:
        Ensemble.load(run, device=CPU)
    assert "\n" not in str(caught.value)
    with pytest.raises(BackboneError, match="is not the backbone that the adapters were trained"):
        Ensemble.load(run, backbone=str(tmp_path / "models" / "small"), device=CPU)
    assert place(Ensemble.load(run, backbone=f"{small_model}/", device=CPU)) == small_model


def test_an_older_ensemble_finds_it_by_the_runs_config(
    out: Path, small_model: Path, tmp_path: Path
) -> None:
    """It has the folder's last part and the fingerprint alone."""
    run = tmp_path / "outputs" / "day" / "time"
    shutil.copytree(out / "ensemble", run / "ensemble")
    reseal(run / "ensemble", lambda told: told.pop("absolute"))
    with pytest.raises(BackboneError, match="it is not where the run had it"):
        Ensemble.load(run, device=CPU)
    text = (out / "config.yaml").read_text()
    (run / "config.yaml").write_text(text)
    assert place(Ensemble.load(run / "ensemble", device=CPU)) == small_model.resolve()
    shutil.copytree(small_model, tmp_path / "models" / "mine")
    (run / "config.yaml").write_text(text.replace(str(small_model), "models/mine"))
    assert place(Ensemble.load(run, device=CPU)) == (tmp_path / "models" / "mine").resolve()


def test_a_hub_model_is_taken_at_its_commit(tmp_path: Path) -> None:
    """Nothing is asked of the hub: a whole commit says what is in it."""
    fingerprint = f"org/model@{COMMIT}"
    told = place_of(Pretrained("org/model", revision="v2"), fingerprint)
    assert told == {"hub": "org/model", "commit": COMMIT}
    new = {"name": "org/model", "fingerprint": fingerprint, "revision": "v2", "dtype": "bfloat16"}
    for described in ({**new, **told}, new):
        for given in (None, "org/model"):
            found = find_backbone({"backbone": described}, tmp_path, given)
            assert found == Pretrained("org/model", revision=COMMIT, dtype="bfloat16")
    write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": "model", "r": 2})
    point(tmp_path, told)
    named = {"base_model_name_or_path": "org/model", "revision": COMMIT, "r": 2}
    assert read_json(tmp_path / "adapter_config.json") == named
    snapshot = tmp_path / "models--org--model" / "snapshots" / COMMIT
    small_llama(snapshot)
    assert find_backbone({"backbone": new}, tmp_path, str(snapshot)).here
    other = small_llama(tmp_path / "other")
    with pytest.raises(BackboneError, match="is not the backbone"):
        find_backbone({"backbone": new}, tmp_path, str(other))


def test_the_built_in_model_is_that_of_the_package(tmp_path: Path) -> None:
    identity = Tiny().identity()
    told = {"name": "elrea-tiny", "fingerprint": identity, **place_of(Tiny(), identity)}
    assert find_backbone({"backbone": told}, tmp_path) == Tiny()
    told["absolute"] = "/another/machine/elrea/models/tiny/weights"
    assert find_backbone({"backbone": told}, tmp_path) == Tiny()


def test_code_that_comes_with_a_backbone_is_asked_for(small_model: Path, tmp_path: Path) -> None:
    trusted = Pretrained(str(small_model), trust_remote_code=True)
    told = {
        "name": "small", "fingerprint": trusted.identity(), **place_of(trusted, trusted.identity())
    }  # fmt: skip
    with pytest.raises(BackboneError, match="comes with code of its own; if you trust it, pass"):
        find_backbone({"backbone": told}, tmp_path)
    assert find_backbone({"backbone": told}, tmp_path, trust_remote_code=True) == trusted
    told.pop("code")
    assert not find_backbone({"backbone": told}, tmp_path, trust_remote_code=True).trust_remote_code
    assert ensemble_parser("chat", "").parse_args(["run", "--trust-remote-code"]).trust_remote_code


def test_peft_alone_finds_it(
    out: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another working folder; the weights are those of the run."""
    monkeypatch.chdir(tmp_path)
    merge([str(out), "--out", "merged"])
    epoch = out / "ensemble" / "routing" / "epoch_1"
    for folder in (out / "ensemble" / "base", out / "ensemble" / "expert-1", epoch, tmp_path / "merged"):  # fmt: skip
        alone = AutoPeftModelForCausalLM.from_pretrained(str(folder)).eval()
        backbone = AutoModelForCausalLM.from_pretrained(small_model)
        wanted = PeftModel.from_pretrained(backbone, str(folder)).eval()
        with torch.no_grad():
            torch.testing.assert_close(alone(IDS).logits, wanted(IDS).logits, rtol=0, atol=0)
            with wanted.disable_adapter():
                assert not torch.allclose(alone(IDS).logits, wanted(IDS).logits)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "on small\n" in card and str(small_model) not in card, "no path of this machine"


def test_files_have_the_umasks_mode(out: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    found = [path for folder in (out, out.parent / "store") for path in folder.rglob("*")]
    files = [path for path in found if path.is_file() and "wandb" not in path.parts]
    wrong = [path for path in files if stat.S_IMODE(path.stat().st_mode) != 0o666 & ~umask]
    assert len(files) > 60 and not wrong


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has padding and a marker that the embedding has no rows for."""
    folder = small_llama(tmp_path_factory.mktemp("odd") / "model")
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens(["<|odd|>"])
    tokenizer.save_pretrained(folder)
    return folder


def test_ids_that_the_embedding_lacks(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding does no harm; a token in a text is refused before training, and by every command."""
    words = [*TINY, *EXAM, QUIET, f"backbone.name={odd}", "store=store"]
    assert run(tmp_path, *words).code == 0
    rows = [f'{{"instruction": "say {i}", "response": "{i}"}}' for i in range(40)]
    (tmp_path / "fine.jsonl").write_text("\n".join(rows))
    bad = [f'{{"instruction": "do {i} <|odd|>", "response": "x"}}' for i in range(9)]
    (tmp_path / "bad.jsonl").write_text("\n".join(bad))
    said = "bad.jsonl:1: token '<|odd|>' (id 260) is beyond the 259 rows of the backbone's embed"
    for train, test in (("fine", "bad"), ("bad", "fine")):
        data = ["data=jsonl", f"data.train={train}.jsonl", f"data.test={test}.jsonl"]
        for plan in ([], ["plan=true"]):
            own = [w for w in words if not w.startswith("data.")]
            ended = run(tmp_path, *own, *data, *plan, "hydra.run.dir=other")
            assert said in ended.error, ended.error
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "say <|odd|>"}')
    out = str(tmp_path / "out")
    with pytest.raises(DataError, match=r"prompts.jsonl:1: token '<\|odd\|>' \(id 260\)"):
        predict([out, "--in", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "answers")])
    assert not (tmp_path / "answers").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO("say <|odd|>\n"))
    with pytest.raises(DataError, match=r"the prompt: token '<\|odd\|>' \(id 260\)"):
        chat([out])
    ensemble = Ensemble.load(out, device=CPU)
    with pytest.raises(DataError, match=r"prompt 1: token '<\|odd\|>'"):
        ensemble.score(["say"], [["a", "<|odd|>"]])
    assert len(ensemble.generate(["say", "say it again"])) == 2, "padded by an id that it has"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("xlnet", "its logits depend on later tokens"),
        ("bert", "BertForMaskedLM is an encoder; the backbone has to be a causal"),
        ("nameless", "has no tokenizer (tokenizer.json, tokenizer.model, vocab.json or the like)"),
    ],
)
def test_a_plan_refuses_what_cannot_be_a_backbone(
    kind: str, said: str, small_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    if kind == "nameless":
        shutil.copytree(small_model, folder)
        for path in folder.glob("tokenizer*"):
            path.unlink()
    else:
        saved(folder, {"xlnet": xlnet, "bert": bert}[kind]())
    words = [*TINY, *EXAM, QUIET, f"backbone.name={folder}", "store=store"]
    ended = run(tmp_path, *words, "plan=true")
    assert said in ended.error, ended
    assert said in run(tmp_path, *words).error
    assert not list(tmp_path.glob("store/base/*/adapter"))
