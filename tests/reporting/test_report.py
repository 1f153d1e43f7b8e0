"""report.html: what it shows, and that nothing in it runs."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from elrea.errors import StoreError
from elrea.reporting.html import run_report, sweep_report, table
from elrea.reporting.plots.canvas import DOTS
from elrea.store.files import read_json, write_json

NASTY = '<script>alert("x")</script><img src=x onerror=y>'
ROW = {
    "accuracy": 0.75, "n": 4, "ci95": [0.5, 0.9], "delta_to_base": 0.25, "delta_ci95": [0.1, 0.4],
    "forward_passes": 9.0, "loss": 1.43,
}  # fmt: skip


class Tags(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def written(folder: Path) -> Tags:
    base = {**ROW, "delta_to_base": None, "delta_ci95": None, "accuracy": 0.5}
    summary = {
        "data": NASTY, "seed": 3, "backbone": NASTY, "versions": {NASTY: "1"},
        "strategies": {"base": base, NASTY: ROW},
        "stages": {NASTY: {"key": "k", "seconds": 1234.56, "reused": True}},
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    write_json(folder / "status.json", {"chosen": NASTY, "command": [f"tracking.name={NASTY}"]})
    return Tags(run_report(folder).read_text(encoding="utf-8"))


def test_nothing_from_data_becomes_html(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert page.text.count('alert("x")') >= 6, "shown as it is"
    assert not {"script", "img", "iframe", "object", "link"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    job = {"number": NASTY, "state": "failed", "chosen": NASTY, "strategies": {}, "error": NASTY}
    swept = Tags(sweep_report(tmp_path, [NASTY], [job], {NASTY: [NASTY]}, [NASTY], []).read_text())
    assert {tag for tag, _ in swept.tags} <= {tag for tag, _ in page.tags} | {"a"}


def test_the_table_says_what_the_screen_says(tmp_path: Path) -> None:
    text = written(tmp_path).text
    for figure in ("75.0", "[50.0, 90.0]", "+25.0", "[+10.0, +40.0]", "1,234.6", "reused"):
        assert figure in text
    assert '<span class="up">+25.0</span>' in (tmp_path / "report.html").read_text()


def test_pictures_are_inside(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    content = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (864).to_bytes(4, "big")
    (tmp_path / "plots" / "accuracy.png").write_bytes(content)
    (tmp_path / "plots" / "other.png").write_bytes(b"not known")
    images = [attrs for tag, attrs in written(tmp_path).tags if tag == "img"]
    (image,) = images
    data = base64.b64encode(content).decode()
    assert image["src"] == f"data:image/png;base64,{data}"
    assert image["width"] == str(864 * 100 // DOTS), "as wide as it was drawn, not as its dots"


def test_stages_stand_in_the_order_of_the_work_with_what_was_reused(tmp_path: Path) -> None:
    names = ["base", "features-train", "clusters", "expert-0", "features-test", "scores"]
    stages = {name: {"key": "k", "seconds": 2.0, "reused": name == "base"} for name in names}
    written(tmp_path)
    summary = {**read_json(tmp_path / "summary.json"), "stages": stages}
    write_json(tmp_path / "summary.json", summary, ordered=True)
    text = Tags(run_report(tmp_path).read_text()).text
    places = [text.index(name, text.index("Plan")) for name in names]
    assert places == sorted(places)
    assert "5 stages were made in 10.0 s; 1 were reused, which had taken 2.0 s." in text


def test_losses_of_another_scale_are_explained(tmp_path: Path) -> None:
    text = written(tmp_path).text
    assert "1.43" in text and "uniform's sum to the number of members" in text


def test_numbers_stand_right_and_words_left() -> None:
    assert table(["a"], [["-1.5"]]).count('class="number"') == 1
    assert 'class="number"' not in table(["a"], [["elrea"]])


def test_a_run_without_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        run_report(tmp_path)
