"""The tests that need a GPU (`pytest -m gpu`)."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from experiments.gpu.record import Record

if TYPE_CHECKING:
    from experiments.gpu.setting import Setting

NEEDS = ("pytest",)


def measure(setting: Setting, record: Record) -> None:
    """Runs them in a process; without a GPU they are collected and skipped.

    Raises:
        AssertionError: A test failed.
    """
    found = record.figure("tests", lambda: _run(setting))
    if found["failed"]:
        del record.figures["tests"]  # they are run again
        raise AssertionError(f"{found['failed'][0]} failed, of {len(found['failed'])}")


def _run(setting: Setting) -> dict[str, Any]:
    from experiments.gpu.setting import ROOT

    report = setting.into / "tests.xml"
    report.unlink(missing_ok=True)
    words = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        "tests/gpu",
        f"--junitxml={report.resolve()}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True
    )
    if not report.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise RuntimeError(f"pytest: {lines[-1]}")
    cases = ElementTree.parse(report).getroot().iter("testcase")
    states: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in cases:
        kinds = {child.tag for child in case}
        state = (
            "failed"
            if kinds & {"failure", "error"}
            else "skipped"
            if "skipped" in kinds
            else "passed"
        )
        states[state].append(str(case.get("name")))
    return {
        "passed": len(states["passed"]),
        "skipped": len(states["skipped"]),
        "failed": states["failed"],
    }
