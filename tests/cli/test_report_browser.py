"""report.html of a run and of a sweep in a real browser, at the widths of a phone and of a desktop."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.browser import NAMES, PROGRAM, Browser
from tests.cli.commands import Ended

pytestmark = pytest.mark.skipif(not PROGRAM, reason=f"no browser here: none of {', '.join(NAMES)}")

WIDTHS = [390, 1280]
MEASURE = """
(async () => {
  const images = [...document.images];
  await Promise.allSettled(images.map(image => image.decode()));
  const box = element => { const b = element.getBoundingClientRect(); return [b.left, b.right, b.height]; };
  return {
    inner: innerWidth, page: document.documentElement.scrollWidth,
    images: images.map(i => ({alt: i.alt, width: i.naturalWidth, box: box(i), fits: box(i.closest('figure'))})),
    heads: [...document.querySelectorAll('h1, h2')].map(h => h.textContent),
    tables: [...document.querySelectorAll('table')].map(t => ({
      heads: [...t.querySelectorAll('th')].map(h => h.textContent), rows: t.querySelectorAll('tbody tr').length,
      first: [...t.querySelectorAll('tbody td:first-child')].map(c => c.textContent),
      wide: t.scrollWidth, room: t.parentElement.clientWidth,
    })),
    links: [...document.querySelectorAll('a')].map(a => a.href),
    command: [...document.querySelectorAll('pre')].at(-1).textContent, text: document.body.innerText,
    clipped: [...document.querySelectorAll('h1, h2, p, pre, figcaption')].filter(e => e.scrollWidth > e.clientWidth)
      .map(e => e.textContent),
  };
})()
"""
RUN = [
    "Accuracy of every", "Accuracy by task", "Training examples by source", "features, two leading", "Mean weight",
    "Training losses",
]  # fmt: skip
SWEEP = [
    "Accuracy against what", "Gain over the base", "Accuracy against forward passes",
    "Accuracy against the seconds of training",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def looks_right(browser: Browser, page: Path, width: int) -> dict[str, Any]:
    """Measures a page, after the checks that every report must pass."""
    seen = browser.show(page, width, MEASURE)
    assert seen.errors == [] and seen.requests == []
    found: dict[str, Any] = seen.value
    assert found["inner"] == width
    assert found["page"] <= width, "the page scrolls sideways"
    assert found["clipped"] == []
    for image in found["images"]:
        assert image["width"] > 0, f"{image['alt']} is not decoded"
        left, right, height = image["box"]
        assert left >= 0 and height > 80
        assert right <= image["fits"][1] + 1, f"{image['alt']} is wider than its place"
    return found


def pictured(found: dict[str, Any], captions: list[str]) -> bool:
    alts = [image["alt"] for image in found["images"]]
    return len(alts) == len(captions) and all(
        caption in alt for caption, alt in zip(captions, alts, strict=True)
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_runs_report(width: int, whole: Ended, words: list[str], browser: Browser) -> None:
    found = looks_right(browser, whole.folder / "out" / "report.html", width)
    heads = [
        "Accuracy % by source",
        "Loss by source, nats per token",
        "Pictures",
        "Sample answers",
        "Clusters",
        "Data",
    ]
    assert found["heads"] == ["elrea on exam (built-in exam, not MMLU)", *heads, "Plan", "Command"]
    assert pictured(found, RUN), [image["alt"] for image in found["images"]]
    results, plan = found["tables"][0], found["tables"][-1]
    assert results["heads"] == [
        "strategy", "accuracy %", "95 % interval", "to base, points", "95 % interval, paired", "passes", "loss",
    ]  # fmt: skip
    assert results["first"] == list(whole.summary["strategies"])
    for table in (results, plan):
        assert table["wide"] <= table["room"], "a table is cut off"
    stages = ["base", "features-train", "clusters", "expert-0", "expert-1", "features-test", "scores"]  # fmt: skip
    assert plan["first"] == stages
    assert "7 of 7 stages were made, in" in found["text"] and "the others" not in found["text"]
    assert shlex.split(found["command"]) == ["python", "run.py", *words]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_sweeps_report(width: int, compared: Path, browser: Browser) -> None:
    found = looks_right(browser, compared / "report.html", width)
    assert found["heads"] == ["Sweep: 2 of 2 jobs", "Pictures", "Over seeds", "Jobs", "Command"]
    assert pictured(found, SWEEP), [image["alt"] for image in found["images"]]
    assert "exam (built-in exam, not MMLU)" in found["text"]
    over, jobs = found["tables"]
    assert (over["rows"], jobs["rows"]) == (12, 2), "six strategies of two numbers of clusters"
    assert found["links"] == [(compared / job / "report.html").as_uri() for job in ("0", "1")]
    assert found["command"].startswith("python run.py -m +experiment=elrea_mmlu ")
    job = looks_right(browser, compared / "0" / "report.html", width)
    assert "to make the others took" in job["text"]


def test_the_browser_reports_errors(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><title>x</title>"
        "<h1>x</h1><pre>x</pre><div style='width: 500px'>x</div>"
        "<figure><img alt=broken src='data:image/png;base64,AAAA'></figure>"
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('told')</script>"
    )
    script = (
        "[document.documentElement.scrollWidth, ...[...document.images].map(i => i.naturalWidth)]"
    )
    seen = browser.show(page, 390, script)
    assert seen.value[0] > 500 and seen.value[1:] == [0, 0]
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert any("told" in error for error in seen.errors)
