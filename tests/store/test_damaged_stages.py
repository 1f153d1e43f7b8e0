"""A damaged stage is found, said in one line with its file, and made again; its files are kept until then."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.stages import stage, two_files


def cut(folder: Path) -> None:
    os.truncate(folder / "a.bin", 4)


def flip(folder: Path) -> None:
    time.sleep(0.01)  # a change within the clock's resolution would look like no change
    (folder / "a.bin").write_bytes(b"012345678_")


def remove(folder: Path) -> None:
    (folder / "a.bin").unlink()


def break_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def foreign_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "key": "0" * 16}))


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def a_link_to_nowhere(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.with_name("nowhere"))


def a_link_to_another_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder.parents[1] / "other").mkdir()
    (folder.parents[1] / "other" / "kept").write_text("")
    folder.symlink_to(folder.parents[1] / "other")


@pytest.mark.parametrize("before", [None, a_file, a_link_to_nowhere, a_link_to_another_folder])
@pytest.mark.parametrize("damage", [a_file, a_link_to_nowhere, a_link_to_another_folder])
def test_a_stage_that_is_not_a_folder_is_damaged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    before: Callable[[Path], None] | None,
) -> None:
    """Also if a killed process has already moved such damage aside."""
    made = stage(tmp_path)
    made.run(two_files)
    if before:
        aside = tmp_path / "other_store" / "features" / f"{made.key}.damaged"
        aside.mkdir(parents=True)
        before(aside)
        aside.rename(made.folder.with_name(aside.name))
    damage(made.folder)
    with caplog.at_level(logging.WARNING):
        again = stage(tmp_path)
        assert not again.done()
        again.run(two_files)
    (line,) = caplog.messages
    assert str(made.folder) in line and "is damaged and has to be made again" in line
    assert not again.reused and not made.folder.is_symlink() and stage(tmp_path).done()
    assert [path.name for path in made.folder.parent.iterdir()] == [made.key]
    assert all(path.exists() for path in tmp_path.glob("*/other/kept"))
    assert damage is not a_link_to_another_folder or (tmp_path / "other" / "kept").exists()


@pytest.mark.parametrize(
    "damage",
    [cut, flip, remove, break_manifest, empty_manifest, foreign_manifest, no_manifest],
)
def test_damage_is_logged_and_repaired(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    made = stage(tmp_path)
    made.run(two_files)
    damage(made.folder)
    with caplog.at_level(logging.WARNING):
        assert not stage(tmp_path).done()
        again = stage(tmp_path)
        again.run(two_files)
    file = "manifest.json" if "manifest" in damage.__name__ else "a.bin"
    (line,) = caplog.messages  # found by `done` and by `run`, logged once
    assert str(made.folder / file) in line and "\n" not in line
    assert not again.reused and stage(tmp_path).done()
    assert (again.folder / "a.bin").read_bytes() == b"0123456789"


def test_damaged_files_are_kept_until_the_new_ones_are_complete(tmp_path: Path) -> None:
    made = stage(tmp_path)
    made.run(two_files)
    cut(made.folder)

    def fail(work: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage(tmp_path).run(fail)
    aside = made.folder.with_name(f"{made.key}.damaged")
    assert (aside / "sub" / "b.txt").read_text() == "b"
    stage(tmp_path).run(two_files)
    assert not aside.exists()
