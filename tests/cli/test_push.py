"""`elrea push RUN --repo user/name` to a server on this machine, and `Ensemble.load("user/name")` from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from peft import PeftModel
from transformers import AutoModelForCausalLM

from elrea.commands import push
from elrea.commands.exit import one_line_errors
from elrea.errors import ElreaError, NotHere, StoreError
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from elrea.store.files import with_checksum
from tests.cli.commands import Ended
from tests.cli.hub_server import Hub, serving

TOKEN, REPO = "hf_of_nobody", "someone/ensemble"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The library talks to the server instead of the hub, with a cache of its own."""
    with serving(TOKEN) as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "cache" / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_what_is_pushed_is_loaded_at_its_commit(
    hub: Hub, whole: Ended, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:  # fmt: skip
    run = whole.folder / "out"
    push.main([str(run), "--repo", REPO])
    ((commit, files),) = hub.commits[REPO]
    assert f'Ensemble.load("hub:{REPO}", revision="{commit}")' in capsys.readouterr().out
    kinds = {Path(name).suffix for name in files}
    assert kinds == {".json", ".safetensors", ".md"} and "expert-1/adapter_config.json" in files
    texts = [data for name, data in files.items() if not name.endswith(".safetensors")]
    for place in (small_model, whole.folder, Path.home()):
        assert not any(str(place).encode() in text for text in texts), place
    card: Any = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "peft" and card.data.base_model is None
    assert "| elrea |" in card.text and REPO in card.text

    # Later commits change nothing, and no file that the list leaves out is downloaded.
    later = {
        **files,
        "README.md": b"# other",
        "evil.py": b"x",
        "model.bin": b"x",
        "other.json": b"{}",
    }
    hub.commit(REPO, later)
    options: Any = {"backbone": str(small_model), "device": Device("cpu", threads=1)}
    for revision in (commit, None):
        hub.downloads.clear()
        name = f"hub:{REPO}" if revision is None else REPO
        found = Ensemble.load(name, revision=revision, **options)
        listed = set(json.loads(files["ensemble.json"])["files"])
        assert set(hub.downloads) <= {"ensemble.json", *listed} - {"README.md"}
        own = Ensemble.load(run, **options)
        prompts = ["What comes after Tuesday?", "Add 1 and 2."]
        assert found.route(prompts) == own.route(prompts)
        assert found.score(prompts, [["A", "B"]] * 2) == own.score(prompts, [["A", "B"]] * 2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Ensemble.load(REPO, revision=commit, **options).members == found.members
    with pytest.raises(NotHere, match=r"^someone/ensemble: the hub says"):
        Ensemble.load(f"hub:{REPO}", **options)


def test_the_backbone_s_hub_id_is_named(hub: Hub, whole: Ended, small_model: Path, tmp_path: Path) -> None:  # fmt: skip
    run = whole.folder / "out"
    push.main([str(run), "--repo", REPO, "--backbone-id", "org/small"])
    ((_, files),) = hub.commits[REPO]
    config = json.loads(files["expert-0/adapter_config.json"])
    assert config["base_model_name_or_path"] == "org/small"
    card: Any = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "org/small"
    folder = tmp_path / "expert-0"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes(files[f"expert-0/{name}"])
    ids = torch.tensor([[1, 80, 90, 100]])
    found, wanted = (
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small_model), str(at))(
            ids
        ).logits
        for at in (folder, run / "ensemble" / "expert-0")
    )
    assert torch.equal(found, wanted)
    push.main([str(run), "--repo", REPO])  # again: the same files, and nothing of the old card
    assert hub.commits[REPO][-1][1].keys() == files.keys()


def test_a_foreign_repository_is_refused(hub: Hub, whole: Ended, small_model: Path) -> None:
    push.main([str(whole.folder / "out"), "--repo", REPO])
    files = hub.commits[REPO][0][1]
    facts = json.loads(files["ensemble.json"])

    def changed(**new: bytes) -> str:
        return hub.commit(REPO, {**files, **new})

    def load(revision: str) -> None:
        Ensemble.load(REPO, revision=revision, backbone=str(small_model))

    for name, said in (
        ("../../up.json", "is outside the folder"), ("run.py", "only JSON and safetensors files"),
        ("a/*.json", "only JSON and safetensors files"), ("weights.bin", "only JSON and safetensors"),
    ):  # fmt: skip
        listed = with_checksum({**facts, "files": {**facts["files"], name: "0" * 64}})
        with pytest.raises(StoreError, match=said):
            load(changed(**{"ensemble.json": json.dumps(listed).encode()}))
    with pytest.raises(StoreError, match="checksum mismatch"):
        load(changed(**{"base/adapter_model.safetensors": b"other"}))
    with pytest.raises(ElreaError, match="the hub says"):
        load("no-such-branch")
    with pytest.raises(ElreaError, match="is a folder, not a hub id"):
        Ensemble.load(whole.folder / "out", revision="main")


def test_an_error_is_one_line(
    hub: Hub, whole: Ended, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = str(whole.folder / "out")
    hub.commit("someone/model", {"config.json": b"{}"})

    def refused(line: str, *words: str) -> None:
        with pytest.raises(SystemExit) as ended, one_line_errors():
            push.main([run, *words])
        err = capsys.readouterr().err
        assert ended.value.code == 1 and line in err and len(err.splitlines()) == 1, err

    refused("holds something else than an ensemble", "--repo", "someone/model")
    refused("--repo name: must be owner/name", "--repo", "name")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    refused("someone/new: the hub says", "--repo", "someone/new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE", "--repo", REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    refused("no token for the hub", "--repo", REPO)
    assert REPO not in hub.commits


def test_a_missing_folder_is_not_asked_for_on_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can be called `outputs` there, and own a repository `run1`."""
    monkeypatch.chdir(tmp_path)
    hub.commit("outputs/run1", {"ensemble.json": b"{}"})
    for name in ("outputs/run1", Path("outputs/run1"), "run1", "~/none"):
        with pytest.raises(NotHere) as caught:
            Ensemble.load(name)
        assert str(caught.value) == (
            f"{name}: no such folder; give a run's, as outputs/<day>/<time>, or an ensemble on the hub "
            "as hub:owner/name"
        )
    assert not hub.downloads
    with pytest.raises(StoreError):  # what is there is no ensemble
        Ensemble.load("hub:outputs/run1")
    assert hub.downloads == ["ensemble.json"]
    for name in ("hub:outputs", "hub:../x", "hub:", "hub:a/b/c"):
        with pytest.raises(ElreaError, match="must be followed by a hub id owner/name"):
            Ensemble.load(name)


def test_a_push_replaces_every_member_that_was_there(hub: Hub, whole: Ended) -> None:
    run = str(whole.folder / "out")
    push.main([run, "--repo", REPO])
    files = hub.commits[REPO][-1][1]
    facts = json.loads(files["ensemble.json"])
    names = ["wide", "a[b]", "expert-x0.5-0", "parameter-matched"]
    old = with_checksum({**facts, "members": [*facts["members"], *names[:3], "*", 3]})
    more = {f"{name}/adapter_config.json": b"{}" for name in [*names, "pictures", "ab"]}
    hub.commit(REPO, {**files, **more, "ensemble.json": json.dumps(old).encode()})
    push.main([run, "--repo", REPO])
    kept = {"pictures/adapter_config.json", "ab/adapter_config.json"}
    assert hub.commits[REPO][-1][1].keys() == files.keys() | kept
    hub.commit(REPO, {**files, "ensemble.json": b"{"})
    push.main([run, "--repo", REPO])
    assert hub.commits[REPO][-1][1].keys() == files.keys()
