"""A stage of two small files, which the tests of the store make."""

from __future__ import annotations

from pathlib import Path

from elrea.store.stage import Stage, Store

INPUTS = {"rate": 0.1, "layers": [1, 2], "name": "δ"}


def stage(root: Path, **inputs: object) -> Stage:
    return Store(root).stage("features", 1, {**INPUTS, **inputs})


def two_files(work: Path) -> None:
    (work / "sub").mkdir()
    (work / "a.bin").write_bytes(b"0123456789")
    (work / "sub" / "b.txt").write_text("b")
