"""Folders that somebody made to run code, to read where they should not, or to learn a secret: each really tried."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from elrea.commands.neighbours import neighbours
from elrea.data.chat_template import ChatTemplate
from elrea.errors import DataError, ElreaError
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.backbone import Pretrained
from elrea.store.files import sha256
from tests.cli.commands import Command, Ended
from tests.cli.test_ensemble import CPU, change

SECRET = "correct-horse-battery-staple-0123456789"


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.sign),)


def vouch(listed: dict[str, str], facts: dict[str, Any]) -> None:
    facts["files"].update(listed)


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    """What a pickle leaves that was run; it works, where somebody loads it."""
    sign = tmp_path / "sign"
    pickle.loads(pickle.dumps(Evil(sign)))
    assert sign.is_dir()
    sign.rmdir()
    return sign


def test_no_pickle_in_an_ensemble_is_run(
    whole: Ended, small_model: Path, tmp_path: Path, sign: Path
) -> None:
    """In place of every file, with a checksum that vouches for it, and beside them under the names PEFT knows."""
    source = whole.folder / "out" / "ensemble"
    names = [p.relative_to(source).as_posix() for p in sorted(source.rglob("*")) if p.is_file()]
    tried = 0
    for name in [*names, "base/adapter_model.bin", "base/optimizer.pt", "expert-0/training_args.bin"]:  # fmt: skip
        if name.endswith("README.md"):
            continue
        copy = tmp_path / f"{tried}"
        shutil.copytree(source, copy)
        (copy / name).write_bytes(pickle.dumps(Evil(sign)))
        if name != "ensemble.json":
            listed = {name: sha256(copy / name)}
            change(copy / "ensemble.json", partial(vouch, listed))
        try:
            Ensemble.load(copy, backbone=str(small_model), device=CPU).route(["one"])
        except ElreaError as error:
            assert "\n" not in str(error)
        else:
            assert name not in names, f"{name} was taken"
        assert not sign.exists(), name
        tried += 1
    assert tried == len(names) - 1 + 3


def test_no_pickle_in_a_model_folder_is_run(small_model: Path, tmp_path: Path, sign: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", "tokenizer.model"):
        copy = tmp_path / name
        shutil.copytree(small_model, copy)
        (copy / name).write_bytes(pickle.dumps(Evil(sign)))
        if name.endswith(".safetensors"):
            with pytest.raises(ElreaError):
                Pretrained(str(copy)).load(CPU)
        else:
            Pretrained(str(copy)).load(CPU)
        assert not sign.exists(), name


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for i in range(10**9) %}a{% endfor %}",
        "{{ 1 + 'a' }}",
        "{{ messages[7].content }}{{ raise_exception('no') }}",
    ],
)
def test_a_chat_template_is_kept_in_its_sandbox(template: str, small_model: Path) -> None:
    tokenizer = Pretrained(str(small_model)).load(CPU).tokenizer
    tokenizer.chat_template = template
    with pytest.raises(DataError) as caught:
        print(ChatTemplate(tokenizer).closing)
    assert "chat template fails" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clustering", {"_target_": "os.system", "command": "true"}),
        ("clustering", {"_target_": "elrea.store.stage.shutil.rmtree", "path": "/nonexistent"}),
        ("features", {"_target_": "builtins.eval", "source": "1"}),
        ("backbone", {"_target_": "elrea.models.backbone.Pretrained", "name": "${oc.create:{}}"}),
        ("data", {"_target_": "subprocess.Popen", "args": ["true"]}),
        ("store", "${python:1}"),
        ("store", ["x"]),
        ("training", "${oc.env:NO_SUCH_VARIABLE}"),
    ],
)
def test_a_runs_config_makes_nothing_but_what_it_may(
    key: str, value: object, whole: Ended, tmp_path: Path
) -> None:
    """`elrea neighbours` and similar commands build a run again from its own config.yaml."""
    run = tmp_path / "run"
    shutil.copytree(whole.folder / "out", run)
    facts = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**facts, key: value}))
    with pytest.raises(ElreaError) as caught:
        neighbours(run, "one", store=whole.folder / "store")
    assert "\n" not in str(caught.value)


def test_yaml_makes_no_objects(whole: Ended, tmp_path: Path, sign: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole.folder / "out", run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(f"{text}\nmore: !!python/object/apply:os.mkdir ['{sign}']\n")
    with pytest.raises(ElreaError) as caught:
        neighbours(run, "one", store=whole.folder / "store")
    assert not sign.exists() and "\n" not in str(caught.value)


@dataclass(frozen=True)
class Environment:
    """Sets variables in the process that calls it."""

    values: dict[str, str]

    def __call__(self) -> None:
        os.environ.update(self.values)


def test_secrets_of_the_environment_reach_no_file(
    whole: Ended, words: list[str], tmp_path: Path
) -> None:
    """Not the config, not the log, not W&B's files, not the report; and one that a config names stays a name."""
    secrets = dict.fromkeys(("WANDB_API_KEY", "HF_TOKEN", "MY_PASSWORD"), SECRET)
    named = "tracking.tags=['${oc.env:MY_PASSWORD}']"
    ended = Command(tmp_path, *words, named, before=Environment(secrets)).wait()
    assert ended.code == 0, ended.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20 and any(path.suffix == ".wandb" for path in files)
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    assert "${oc.env:MY_PASSWORD}" in (tmp_path / "out" / "config.yaml").read_text()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["strategies"]
