"""Fixtures for the tests of plots."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from elrea.reporting.plots import canvas, heatmaps, scatter, trends
from elrea.reporting.plots import figures as plots


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collects every figure that is saved."""
    kept: list[Figure] = []

    def save(draw: Any, *arguments: Any) -> None:
        def and_keep(figure: Figure) -> None:
            draw(figure)
            kept.append(figure)

        canvas.save(and_keep, *arguments)

    for module in (plots, heatmaps, scatter, trends):
        monkeypatch.setattr(module, "save", save)
    return kept
