"""Every kind of file that a run leaves in the store and in `ensemble/`, damaged in every way: a line that names it."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from elrea.errors import ElreaError, StoreError
from elrea.method.ensemble.ensemble import Ensemble
from elrea.method.ensemble.ensemble_folder import read_ensemble
from elrea.store.files import read_json
from elrea.store.stage import Stage, Store
from tests.cli.commands import QUIET, Ended, run
from tests.cli.test_ensemble import CPU, sealed

HUGE, DEEP = "1" + 400 * "0", 100_000 * "["


def cut(path: Path, _other: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path, _other: Path) -> None:
    """One bit in the middle; of a letter or a digit in a text, so that it stays JSON."""
    data = bytearray(path.read_bytes())
    places = range(len(data) // 2, len(data))
    middle = next((i for i in places if chr(data[i]).isalnum() and data[i] < 128), len(data) // 2)
    data[middle] ^= 1
    path.write_bytes(data)


def empty(path: Path, _other: Path) -> None:
    path.write_bytes(b"")


def replace(path: Path, other: Path) -> None:
    """By another run's."""
    shutil.copyfile(other, path)


def huge(path: Path, _other: Path) -> None:
    path.write_text(re.sub(r"(?<=[ \[])\d+(?=[,\n\]])", HUGE, path.read_text()))


def infinite(path: Path, _other: Path) -> None:
    path.write_text(re.sub(r"(?<=[ \[])[\d.]+(?=[,\n\]])", "1e999", path.read_text()))


def deep(path: Path, _other: Path) -> None:
    path.write_text(DEEP)


def deepish(path: Path, _other: Path) -> None:
    """Deep enough to be read, and too deep for what looks at it then."""
    start = path.read_text().rstrip().removesuffix("}")
    path.write_text(f'{start}, "more": {480 * "["}{480 * "]"}}}')


Harm = Callable[[Path, Path], None]
BYTES: list[Harm] = [cut, flip, empty, replace]
JSON: list[Harm] = [huge, infinite, deep]


def kind_of(path: Path) -> str:
    """What a file is, whatever its number: `base/epoch_1/moments.json` of stage `base/<key>`."""
    return re.sub(r"/[0-9a-f]{16}/", "/", re.sub(r"(?<=[_-])\d+", "*", path.as_posix()))


def kinds(root: Path) -> dict[str, Path]:
    """One file of each kind, as a path below `root`."""
    found = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {kind_of(path): path for path in reversed(found)}


def harms(path: Path) -> list[Harm]:
    return BYTES + (JSON if path.suffix == ".json" else [])


@pytest.fixture(scope="module")
def other(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run: the same, from another seed."""
    folder = tmp_path_factory.mktemp("other")
    ended = run(folder, *words, "seed=1", QUIET, f"store={folder / 'store'}")
    assert (ended.code, ended.err) == (0, "")
    return folder


def stage_of(store: Path, rel: Path) -> Stage:
    made = read_json(store / rel.parts[0] / rel.parts[1] / "manifest.json")
    return Store(store).stage(made["name"], made["version"], made["inputs"])


def twin(other: Path, rel: Path) -> Path:
    """The other run's file of the same kind."""
    store = other / "store"
    return next(path for path in store.rglob(rel.name) if kind_of(path.relative_to(store)) == kind_of(rel))  # fmt: skip


def hurts(harm: Harm, path: Path, other: Path) -> bool:
    """Does it; whether anything has changed: another run's list of what was skipped may be as empty."""
    before = path.read_bytes()
    harm(path, other)
    return path.read_bytes() != before


def test_in_the_store_every_damage_is_said_and_mended(
    whole: Ended, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For every kind of file and every kind of harm: not taken for whole, named in one line, made again."""
    keys = {stage["key"] for stage in whole.summary["stages"].values()}  # other tests add others
    own = tmp_path / "own"
    for manifest in (whole.folder / "store").glob("*/*/manifest.json"):
        if manifest.parent.name in keys:
            place = own / manifest.parent.relative_to(whole.folder / "store")
            shutil.copytree(manifest.parent, place)
    found, tried = kinds(own), 0
    assert len(found) == 23, f"{len(found)} kinds of files: {sorted(found)}"
    for rel in found.values():
        for number, harm in enumerate(harms(rel)):
            source = whole.folder / "store" / rel.parts[0] / rel.parts[1]
            store = tmp_path / f"{number}-{'-'.join(rel.parts)}"
            shutil.copytree(source, store / rel.parts[0] / rel.parts[1])
            stage = stage_of(store, rel)
            if not hurts(harm, store / rel, twin(other, rel)):
                continue
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert not stage.done(), f"{rel}: {harm.__name__} went unnoticed"
            (line,) = caplog.messages
            assert str(store / rel) in line and "\n" not in line and len(line) < 500

            def make(work: Path, source: Path = source) -> None:
                shutil.copytree(source, work, dirs_exist_ok=True)
                (work / "manifest.json").unlink()

            stage.run(make)
            assert stage.done()
            tried += 1
    assert tried == 129, f"{tried} damages"


def test_a_store_with_something_wrong_in_every_stage(
    whole: Ended, words: list[str], other: Path, tmp_path: Path
) -> None:
    """The same command makes again what is damaged, says so, and comes to the same results."""
    store = tmp_path / "store"
    shutil.copytree(whole.folder / "store", store)
    keys = {stage["key"] for stage in whole.summary["stages"].values()}  # other tests add others
    hurt = []
    for number, folder in enumerate(sorted(p for p in store.glob("*/*") if p.name in keys)):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[number % len(files)]
        every = harms(path)[number % 4 :]
        assert any(hurts(harm, path, twin(other, path.relative_to(store))) for harm in every)
        hurt.append(path)
    ended = run(tmp_path, *words, f"store={store}", QUIET)
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert len(lines) == len(hurt) == 7
    for path in hurt:
        assert sum(str(path) in line for line in lines) == 1, path
    assert json.dumps(ended.summary) == json.dumps(whole.summary)
    for name in ("predictions.jsonl", "ensemble/ensemble.json"):
        assert (tmp_path / "out" / name).read_bytes() == (whole.folder / "out" / name).read_bytes()


def test_in_an_ensemble_every_damage_is_one_line(
    whole: Ended, other: Path, small_model: Path, tmp_path: Path
) -> None:
    found = kinds(whole.folder / "out" / "ensemble")
    assert len(found) == 11, f"{len(found)} kinds of files: {sorted(found)}"
    tried = 0
    for rel in found.values():
        more: list[Harm] = [deepish] if rel.name == "ensemble.json" else []
        for number, harm in enumerate(harms(rel) + more):
            copy = tmp_path / f"{number}-{'-'.join(rel.parts)}"
            shutil.copytree(whole.folder / "out" / "ensemble", copy)
            if not hurts(harm, copy / rel, other / "out" / "ensemble" / rel):
                continue
            with pytest.raises(StoreError) as caught:
                read_ensemble(copy, str(small_model))
            line = str(caught.value)
            # Another run's list of files is whole: it is the files that are not in it.
            named = str(copy) if (rel.name, harm) == ("ensemble.json", replace) else str(copy / rel)
            assert named in line and "\n" not in line and len(line) < 500, (rel, harm, line)
            tried += 1
    assert tried == 56, f"{tried} damages"


@pytest.mark.parametrize("harm", [*JSON, deepish])
def test_numbers_in_an_ensemble_that_its_checksums_vouch_for(
    harm: Harm, whole: Ended, small_model: Path, tmp_path: Path
) -> None:
    """Somebody made the folder so: no crash, and no numbers from it."""
    for rel in kinds(whole.folder / "out" / "ensemble").values():
        copy = tmp_path / "-".join(rel.parts)
        if rel.suffix != ".json" or rel.name == "ensemble.json":
            continue
        shutil.copytree(whole.folder / "out" / "ensemble", copy)
        before = (copy / rel).read_bytes()
        sealed(copy, rel.as_posix(), lambda path: harm(path, path))
        if (copy / rel).read_bytes() == before:
            continue
        try:
            ensemble = Ensemble.load(copy, backbone=str(small_model), device=CPU)
            ensemble.route(["one"])
        except ElreaError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
        else:
            assert harm is deepish, f"{rel}: {harm.__name__} was taken"
