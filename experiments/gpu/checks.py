"""The tests that need a GPU (`pytest -m gpu`)."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from experiments.gpu.record import Record
from experiments.gpu.setting import ROOT

if TYPE_CHECKING:
    from experiments.gpu.setting import Setting

NEEDS = ("pytest",)
TESTS = ROOT / "tests" / "gpu"
SHOWN = 200
"""Lines of pytest's output that are printed if a test fails: its end has the errors."""


def measure(setting: Setting, record: Record) -> None:
    """Runs each test file in a process; without a GPU its tests are collected and skipped.

    Raises:
        AssertionError: A test failed.
    """
    failed = []
    for file in sorted(TESTS.glob("test_*.py")):
        if "mark.gpu" not in file.read_text(encoding="utf-8"):
            continue
        found = record.figure(file.name, partial(_run, setting, file))
        if found["failed"]:
            failed += found["failed"]
            del record.figures[file.name]  # it is run again
    if failed:
        raise AssertionError(f"{failed[0]} failed, of {len(failed)}")


def _run(setting: Setting, file: Path) -> dict[str, Any]:
    report = setting.into / "tests.xml"
    report.unlink(missing_ok=True)
    words = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        str(file),
        f"--junitxml={report.resolve()}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True
    )
    if not report.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise RuntimeError(f"pytest: {lines[-1]}")
    states: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        states[_state(case)].append(str(case.get("name")))
    if states["failed"]:
        print("\n".join(done.stdout.splitlines()[-SHOWN:]), flush=True)
    return {
        "passed": len(states["passed"]),
        "skipped": len(states["skipped"]),
        "failed": states["failed"],
    }


def _state(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in kinds else "passed"
