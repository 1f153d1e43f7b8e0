"""Secrets and paths of this machine are removed from everything that is sent to W&B."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from elrea.reporting.wandb.privacy import HIDDEN, public, relative


@pytest.mark.parametrize(
    "key", ["api_key", "wandb_api_key", "apikey", "HF_TOKEN", "token", "hub_token", "password"]
)
def test_secret_keys_hide_their_values(key: str) -> None:
    assert public({"hub": [{key: "shh"}]}) == {"hub": [{key: HIDDEN}]}
    assert public({key: None}) == {key: None}


@pytest.mark.parametrize("key", ["max_tokens", "tokenizer", "pad_token", "key", "keys", "tokens"])
def test_settings_with_similar_names_stay(key: str) -> None:
    assert public({key: "value"}) == {key: "value"}


def test_secret_variables_are_found_inside_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    monkeypatch.setenv("OTHER_TOKEN", "hf_abcdefghijkl_and_more")
    monkeypatch.setenv("SHORT_KEY", "value")
    assert public(["url?t=hf_abcdefghijkl_and_more", "value"]) == [f"url?t={HIDDEN}", "value"]


def test_paths_become_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    given = [work / "data" / "x", str(work), f"{home}/models", "/opt/models", f"{work}er"]
    assert public(given) == ["data/x", ".", "~/models", "/opt/models", f"{work}er"]
    assert relative(str(work / "runs")) == "runs"
    assert relative(f"{home}/models") == f"{home}/models"


def test_a_deleted_working_folder_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert public({"path": "/somewhere/else"}) == {"path": "/somewhere/else"}


def test_everything_becomes_plain_data() -> None:
    value = {
        1: (np.float64(0.5), np.int64(2), np.bool_(True), None, True, 1.5),
        "array": np.arange(3),
        "set": {"b", "a"},
    }
    plain = public(value)
    assert plain == {"1": [0.5, 2, True, None, True, 1.5], "array": [0, 1, 2], "set": ["a", "b"]}
    assert json.loads(json.dumps(plain)) == plain
