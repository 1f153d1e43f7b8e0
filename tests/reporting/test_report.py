"""report.html: its contents, and that it contains no active content."""

from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from elrea.data.examples import Example
from elrea.reporting.ending import show_results
from elrea.reporting.html import environment, run_report, sweep_report
from elrea.reporting.plots.canvas import DOTS
from elrea.reporting.report import MadeStage
from tests.reporting.reports import BASE, ROW, report

NASTY = '<script>alert("x")</script><img src=x onerror=y>'


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


def write(folder: Path, pictures: dict[str, Path] | None = None, **changes: Any) -> Tags:
    return Tags(run_report(folder, report(**changes), pictures or {}).read_text(encoding="utf-8"))


def test_nothing_from_data_becomes_html(tmp_path: Path) -> None:
    page = write(
        tmp_path, chosen=NASTY, data=NASTY, backbone=NASTY, command=[f"tracking.name={NASTY}"],
        strategies={"base": BASE, NASTY: ROW}, versions={NASTY: "1"},
        stages={NASTY: MadeStage(NASTY, NASTY, 1.0, True, {})},
    )  # fmt: skip
    assert page.text.count('alert("x")') >= 6, "shown literally"
    assert not {"script", "img", "iframe", "object", "link"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    job = {"number": NASTY, "state": "failed", "chosen": NASTY, "strategies": {}, "error": NASTY}
    swept = Tags(sweep_report(tmp_path, [NASTY], [job], {NASTY: [NASTY]}, [NASTY], []).read_text())
    assert {tag for tag, _ in swept.tags} <= {tag for tag, _ in page.tags} | {"a"}


def test_the_note_of_a_mix_stands_once(tmp_path: Path) -> None:
    note = "mix of a 6 and 2, b 6 and 2 to train and test; 1 dropped from train"
    write(tmp_path, data="mix (a and b)", note=note)
    page = (tmp_path / "report.html").read_text()
    assert page.count(note) == 1
    assert "<h1>elrea on mix (a and b)</h1>" in page and "<title>elrea, mix (a and b)" in page


def test_the_table_has_the_figures_of_the_screen(tmp_path: Path) -> None:
    stages = {"base": MadeStage("base", "k", 1234.56, True, {})}
    text = write(tmp_path, stages=stages).text
    for figure in ("75.0", "[50.0, 90.0]", "+25.0", "[+10.0, +40.0]", "1,234.6", "reused"):
        assert figure in text
    assert '<span class="up">+25.0</span>' in (tmp_path / "report.html").read_text()


def test_pictures_are_inside(tmp_path: Path) -> None:
    content = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (864).to_bytes(4, "big")
    (tmp_path / "accuracy.png").write_bytes(content)
    (tmp_path / "other.png").write_bytes(b"not known")
    pictures = {name: tmp_path / f"{name}.png" for name in ("accuracy", "other")}
    (image,) = [attrs for tag, attrs in write(tmp_path, pictures).tags if tag == "img"]
    data = base64.b64encode(content).decode()
    assert image["src"] == f"data:image/png;base64,{data}"
    assert image["width"] == str(864 * 100 // DOTS), "its width in CSS pixels, not in dots"


def test_stages_are_in_order_with_the_number_of_reused_ones(tmp_path: Path) -> None:
    names = ["base", "features-train", "clusters", "expert-0", "features-test", "scores"]
    stages = {name: MadeStage("x", "k", 2.0, name == "base", {}) for name in names}
    text = write(tmp_path, stages=stages).text
    places = [text.index(name, text.index("Plan")) for name in names]
    assert places == sorted(places)
    assert "5 of 6 stages were made, in 10.0 s; to make the others took 2.0 s." in text


def test_losses_on_a_different_scale_are_explained(tmp_path: Path) -> None:
    text = " ".join(write(tmp_path).text.split())
    assert "1.43" in text and "sum to 1: those of elrea sum to 1 + w_base. This makes" in text
    assert "with evaluation.mean_logits=true they compare" in text
    rows = {"base": BASE, "uniform": ROW}
    text = " ".join(write(tmp_path, strategies=rows).text.split())
    assert "sum to 1: those of uniform sum to the number of members. This" in text


@pytest.mark.parametrize(
    ("loss", "passes", "mean"), [(None, 9.0, False), (1.43, 1.0, False), (1.43, 9.0, True)]
)
def test_only_losses_on_a_different_scale_are_explained(
    loss: float | None,
    passes: float,
    mean: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is none, no row mixes members, or the logits are means."""
    rows = {name: {**ROW, "loss": loss, "forward_passes": passes} for name in ("base", "elrea")}
    told = report(test=(Example("a", "Say it.", "it", "x"),), strategies=rows, mean_logits=mean)
    page = Tags(run_report(tmp_path, told, {}).read_text()).text
    assert "sharper" not in page and ("nats per token" in page) is (loss is not None)
    show_results(told, tmp_path, "")
    assert "sharper" not in capsys.readouterr().out
    rows["elrea"] = ROW
    show_results(replace(told, mean_logits=False), tmp_path, "")
    assert "sharper" in capsys.readouterr().out


def test_numbers_are_aligned_to_the_right_and_text_to_the_left() -> None:
    def table(cell: str) -> str:
        macros = environment().get_template("macros.html").module
        return str(macros.table(["a"], [[cell]]))  # type: ignore[attr-defined]

    assert table("-1.5").count("number") == 2, "the head's and the cell's"
    assert "number" not in table("elrea")
    assert "a_<wbr>b &lt;" in table("a_b <")
