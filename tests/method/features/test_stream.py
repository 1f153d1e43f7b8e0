"""Features written to a file: the same bytes after interruptions and from several processes, in constant memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elrea.method.features import to_disk as module
from elrea.method.features.to_disk import NAME, cut, open_features, read_skipped, stream
from tests.method.features.stub import Drawn, DrawnReader, prompts, row

ROOT = Path(__file__).parents[3]
PROMPTS = prompts(53, bad=[7, 40])
SCRIPT = """
import os, signal, sys
from pathlib import Path
from elrea.method.features import to_disk as module
from tests.method.features.stub import Drawn, DrawnReader, prompts
module.CHUNK = 10
rank, world, kill = map(int, sys.argv[2:])
seen = []
def advance(count):
    seen.append(count)
    if sum(seen) > kill > 0:
        os.kill(os.getpid(), signal.SIGKILL)
module.stream(Path(sys.argv[1]), prompts(53, bad=[7, 40]), Drawn(), DrawnReader(), share=(rank, world), advance=advance)
"""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 10)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def process(folder: Path, rank: int = 0, world: int = 1, kill: int = 0) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    words = [str(folder), str(rank), str(world), str(kill)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *words], cwd=ROOT, env=environment)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    folder = tmp_path / "whole"
    folder.mkdir()
    stream(folder, PROMPTS, Drawn(), DrawnReader())
    return contents(folder)


def test_rows_are_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    passes: list[int] = []
    stream(tmp_path, PROMPTS, Drawn(), DrawnReader(), advance=passes.append)
    rows = open_features(tmp_path / NAME, 53, 8)
    assert rows.dtype == np.float16 and sum(passes) == 53
    for place, prompt in enumerate(PROMPTS):
        wanted = row(prompt.id, 8)
        wanted = wanted / np.linalg.norm(wanted) * (place not in (7, 40))
        np.testing.assert_allclose(rows[place].astype(np.float32), wanted, atol=5e-4)
    assert json.loads((tmp_path / "ids.json").read_text()) == [p.id for p in PROMPTS]
    assert read_skipped(tmp_path) == ["bad/7", "bad/40"]


def test_without_normalising_rows_stay_as_they_are_in_float32(tmp_path: Path) -> None:
    stream(tmp_path, PROMPTS, Drawn(normalise=False), DrawnReader())
    rows = open_features(tmp_path / NAME)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[3], row("p/3", 8))
    assert not rows[7].any()


def test_chunks_are_whole_batches_of_some_number_of_prompts(monkeypatch) -> None:
    chunks = cut(PROMPTS, Drawn(), 8)
    sizes = [sum(map(len, chunk)) for chunk in chunks]
    assert sum(sizes) == 53 and max(sizes) <= 10 and len(sizes) <= 12
    assert sorted(i for chunk in chunks for batch in chunk for i in batch) == list(range(53))
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 4 * 1000)
    assert max(sum(map(len, chunk)) for chunk in cut(PROMPTS, Drawn(), 1000)) == 3


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_it_goes_on_to_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "killed"
    assert process(folder, kill=25).wait(timeout=300) == -signal.SIGKILL
    assert not (folder / "ids.json").exists() and (folder / NAME).exists()
    noted = json.loads((folder / "checkpoint" / "extract.json").read_text())
    assert 1 <= len(noted["done"]) < len(cut(PROMPTS, Drawn(), 8))
    passes: list[int] = []
    reader = DrawnReader()
    stream(folder, PROMPTS, Drawn(), reader, advance=passes.append)
    assert 0 < len(reader.seen) < 53 and sum(passes) == 53
    assert contents(folder) == whole


def test_two_processes_at_once_make_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "shared"
    both = [process(folder, rank, 2) for rank in (0, 1)]
    assert [one.wait(timeout=300) for one in both] == [0, 0]
    assert contents(folder) == whole
    names = {path.name for path in (folder / "checkpoint").iterdir()}
    assert {"extract.json", "extract-1.json"} <= names


def test_one_share_alone_is_not_the_end(tmp_path: Path, whole: dict[str, bytes]) -> None:
    first, second = DrawnReader(), DrawnReader()
    stream(tmp_path, PROMPTS, Drawn(), first, share=(1, 2))
    assert not (tmp_path / "ids.json").exists()
    stream(tmp_path, PROMPTS, Drawn(), second)  # alone now: takes what is left
    assert sorted(first.seen + second.seen) == sorted(p.id for p in PROMPTS)
    assert {k: v for k, v in contents(tmp_path).items() if k in whole} == whole


@pytest.mark.parametrize("change", ["batches", "dimension", "cut short", "notes"])
def test_what_does_not_fit_is_made_again(tmp_path: Path, whole, change: str) -> None:
    features, reader = Drawn(), DrawnReader()
    if change == "batches":
        features = replace(features, batch_size=3)
    stream(tmp_path, PROMPTS, features, DrawnReader(9 if change == "dimension" else 8))
    if change == "cut short":
        (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-1])
    if change == "notes":
        (tmp_path / "checkpoint" / "extract.json").write_text("{")
    stream(tmp_path, PROMPTS, Drawn(), reader)
    assert len(reader.seen) == 53
    assert contents(tmp_path) == whole


def test_memory_does_not_grow_with_the_prompts(tmp_path: Path, monkeypatch) -> None:
    """24 times the rows, 50 MB more of file: what is held at once stays a chunk."""
    import tracemalloc

    monkeypatch.setattr(module, "CHUNK", 500)
    peaks = []
    for count in (1_000, 24_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        made = prompts(count)
        tracemalloc.start()
        stream(folder, made, Drawn(batch_size=100), DrawnReader(1024))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "24000" / NAME).stat().st_size > 24_000 * 2048
    assert peaks[1] < peaks[0] + 8e6


def test_a_bit_that_flips_in_rows_that_are_done_is_noticed(
    tmp_path: Path, whole: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Between a process that ended early and the next: only that chunk is computed again."""
    first, second = DrawnReader(), DrawnReader()
    stream(tmp_path, PROMPTS, Drawn(), first, share=(0, 2))
    chunks = cut(PROMPTS, Drawn(), 8)
    row = chunks[2][0][0]
    path = tmp_path / NAME
    content = bytearray(path.read_bytes())
    start = len(content) - 53 * 8 * 2  # float16
    content[start + row * 16 + 5] ^= 4
    path.write_bytes(content)
    stream(tmp_path, PROMPTS, Drawn(), second)
    assert {k: v for k, v in contents(tmp_path).items() if k in whole} == whole
    again = {p.id for p in PROMPTS} - {*first.seen} | {
        PROMPTS[i].id for batch in chunks[2] for i in batch
    }
    assert sorted(second.seen) == sorted(again)
    assert "checksum mismatch in 1 chunks" in caplog.text
