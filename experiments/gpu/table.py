"""The figures of all parts as one table in plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.gpu.parts import Part
    from experiments.gpu.record import Record


def lines(found: Sequence[tuple[Part, Record]]) -> Iterator[str]:
    """A heading per part with its status, and a line per figure."""
    for part, record in found:
        content = record.content
        note = f": {content['note']}" if content["note"] else ""
        yield f"{part.title} [{content['status']}, {content['seconds']:.0f} s]{note}"
        for name, figure in record.figures.items():
            yield from (f"    {line}" for line in _rows(name, figure))


def _rows(name: str, figure: Any) -> Iterator[str]:
    if not isinstance(figure, dict):
        yield f"{name}: {figure}"
        return
    if "paper" in figure:  # the toy: each figure beside the paper's
        yield f"{figure['shape']}, {figure['examples'][0]} examples, {figure['examples'][1]} prompts"
        for key, theirs in figure["paper"].items():
            own = figure["figures"].get(key)
            yield f"{key:22} {'-' if own is None else f'{own:10.3g}'}    paper {theirs:g}"
        return
    plain = ", ".join(
        f"{key} {_shown(key, value)}" for key, value in figure.items() if key != "strategies"
    )
    yield f"{name}: {plain}"


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB"
    return f"{value:g}" if isinstance(value, float) else str(value)
