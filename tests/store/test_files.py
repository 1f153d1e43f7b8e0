"""Writes are atomic, JSON is finite, and equal values give equal bytes and checksums."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from elrea.errors import StoreError
from elrea.store.files import (
    atomic_file,
    canonical,
    checksums,
    json_checksum,
    key_of,
    read_json,
    sha256,
    sha256_of,
    write_json,
    write_text,
)

VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_canonical_text_holds_the_value(value: Any) -> None:
    assert json.loads(canonical(value)) == value


def test_equal_values_make_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 0.1, "a": (1, 2), "ü": "δ"})
    write_json(tmp_path / "b.json", {"ü": "δ", "a": [1, 2], "b": 0.1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "δ" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": [1, 2], "b": 0.1, "ü": "δ"}


def test_half_a_surrogate_pair_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "x\ud83d"})
    assert read_json(tmp_path / "a.json") == {"text": "x\ud83d"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, number: float) -> None:
    file = tmp_path / "curve.json"
    file.write_text("[]")
    with pytest.raises(StoreError) as caught:
        write_json(file, {"loss": [0.5, number]})
    assert "curve.json" in str(caught.value) and "loss[1]" in str(caught.value)
    assert file.read_text() == "[]"


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a", "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write_text(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_checksums_are_sha256(tmp_path: Path) -> None:
    """Recorded: manifests, checkpoints and keys of older versions hold these digests."""
    empty_object = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("{}")
    assert json_checksum({}) == sha256(tmp_path / "sub" / "a") == empty_object
    assert sha256_of("{}").hexdigest() == sha256_of(b"{}").hexdigest() == empty_object
    assert checksums(tmp_path) == {"sub/a": empty_object} and key_of({}) == empty_object[:16]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1,\n"b": }', "line 2"),
        (b"", "line 1"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'"\xff"', "broken JSON"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(StoreError) as caught:
        read_json(tmp_path / "broken.json")
    assert "broken.json" in str(caught.value) and said in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no such file: .*gone\.json"):
        read_json(tmp_path / "gone.json")
