"""Where export, merge, push and predict write: never where a foreign ensemble says, never into an ensemble."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import export, merge, output_folder, predict, push
from elrea.errors import ConfigError, DataError, StoreError
from elrea.method.ensemble.ensemble import Ensemble
from elrea.method.ensemble.folder import checked, read_facts
from elrea.store.files import checksums, sha256
from tests.cli.commands import Ended
from tests.cli.test_ensemble import change


@pytest.fixture
def copy(whole: Ended, tmp_path: Path) -> Path:
    """An ensemble's folder, deep enough for names that climb out of it and come back."""
    place = tmp_path / "dl" / "ensemble"
    shutil.copytree(whole.folder / "out" / "ensemble", place)
    return place


def readers(copy: Path, to: Path) -> list[Callable[[], Any]]:
    return [
        lambda: Ensemble.load(copy),
        lambda: checked(copy),
        lambda: export.main([str(copy), "--to", str(to), "--as", "peft"]),
        lambda: merge.main([str(copy), "--out", str(to)]),
        lambda: push.main([str(copy), "--repo", "someone/ensemble"]),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../../dl/ensemble/expert-1/x", "../ensemble/x", "expert-1/../x", "/x", "./x", "expert-1//x", "expert-1/./x",
        "x/", "a\\x", "", ".", "..",
    ],
)  # fmt: skip
def test_a_listed_name_that_leads_out_is_refused(name: str, copy: Path, tmp_path: Path) -> None:
    (copy / "expert-1" / "x").write_text("x")
    (copy / "x").write_text("x")
    digest = sha256(copy / "x")
    change(copy / "ensemble.json", lambda f: f["files"].update({"x": digest, "expert-1/x": digest}))
    checked(copy)
    change(copy / "ensemble.json", lambda f: f["files"].update({name: digest}))
    before = checksums(tmp_path)
    for read in readers(copy, tmp_path / "to" / "deep"):
        with pytest.raises(
            StoreError, match=r"ensemble\.json: .* is outside the folder, or not in"
        ):
            read()
    assert checksums(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../../dl/ensemble/expert-1", "../x", "expert-1/../base", "a/b", "/x", ".", "..", "", "a\\b"]
)  # fmt: skip
def test_a_member_that_is_no_folder_name_is_refused(name: str, copy: Path, tmp_path: Path) -> None:
    change(copy / "ensemble.json", lambda f: f["members"].__setitem__(2, name))
    before = checksums(tmp_path)
    for read in readers(copy, tmp_path / "to" / "deep"):
        with pytest.raises(StoreError, match="is not a folder's name"):
            read()
    assert checksums(tmp_path) == before


def test_nothing_is_written_into_an_ensemble(copy: Path, tmp_path: Path) -> None:
    link, prompts = tmp_path / "link", tmp_path / "prompts.jsonl"
    link.symlink_to(copy)
    prompts.write_text('{"prompt": "Say one."}\n')
    run, inside = str(copy.parent), "could not be read with more in it; name a place outside"
    for to in (copy / "served", copy / "base" / "served", link / "served"):
        for call in (
            lambda to=str(to): export.main([run, "--to", to, "--as", "peft"]),
            lambda to=str(to): merge.main([run, "--out", to]),
            lambda to=str(to): merge.main([f"{copy}/base", f"{copy}/expert-0", "--out", to]),
            lambda to=str(to): predict.main([run, "--in", str(prompts), "--out", to]),
        ):
            with pytest.raises(ConfigError, match=inside):
                call()
    alone = tmp_path / "alone"
    shutil.copytree(copy / "base", alone)
    with pytest.raises(ConfigError, match=inside):
        export.main([str(alone), "--to", str(alone / "x"), "--as", "peft"])
    checked(copy)
    export.main([run, "--to", str(copy.parent / "served"), "--as", "peft"])  # beside it is no harm
    assert read_facts(copy) == checked(copy)


def test_a_link_to_nothing_and_a_full_disk(copy: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.symlink_to(tmp_path / "nowhere")
    for call in (
        lambda: export.main([str(copy), "--to", str(to), "--as", "peft"]),
        lambda: merge.main([str(copy), "--out", str(to)]),
    ):
        with pytest.raises(
            ConfigError, match="to: is a link to nothing; remove it, or name another"
        ):
            call()
    to.unlink()
    part = tmp_path / "to.partial"
    part.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="exists already, perhaps from an interrupted"):
        output_folder.check_out(to)
    part.unlink()

    def full(place: Path) -> None:
        (place / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        output_folder.publish_new(to, full)
    assert {path.name for path in tmp_path.iterdir()} == {"dl"}
