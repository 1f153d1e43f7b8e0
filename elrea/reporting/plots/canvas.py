"""The paper that plots are drawn on: one look, figures of their own, PNG files.

Pictures are narrow, so that they can be read on a phone: panels stand below each other, and legends below their panel.

Agg and no pyplot, so that jobs in one process share no state and no display is needed. Colours
are Okabe and Ito's, which colour-blind readers can tell apart; line styles and printed numbers
say the same without colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

WIDTH = 6.0
"""Of a picture in inches, where nothing asks for more."""
DOTS = 144
"""Of a picture per inch: sharp on fine screens too."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
GREY = "#5f5f5f"

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
}


def save(
    draw: Callable[[Figure], None],
    path: str | Path,
    size: tuple[float, float],
    title: str,
    note: str = "",
) -> None:
    """Draws on an empty figure and writes it as PNG.

    Args:
        draw: fills the figure.
        path: of the file; its folder is made.
        size: width and height in inches, the title's lines beyond the first not counted.
        title: above everything, in as many lines as it takes.
        note: behind the title and a colon, e.g. "built-in exam, not MMLU".
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        lines = textwrap.wrap(f"{title}: {note}" if note else title, int(9.5 * size[0]))
        height = size[1] + 0.2 * (len(lines) - 1)
        figure = Figure(figsize=(size[0], height), dpi=DOTS, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.suptitle("\n".join(lines), x=0.01, ha="left", weight="bold")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")


def legend(figure: Figure | SubFigure, names: Iterable[str]) -> None:
    """Says below a figure what its lines or clouds are: a legend inside would cover some."""
    figure.legend(
        loc="outside lower left",
        ncols=_columns(names),
        fontsize=8,
        markerscale=1.3,
        edgecolor="none",
    )


def legend_height(names: Collection[str]) -> float:
    """Inches that it takes."""
    return 0.1 + 0.18 * -(-len(names) // _columns(names))


def _columns(names: Iterable[str]) -> int:
    """As many as fit `WIDTH`."""
    return max(1, int(WIDTH / (0.6 + 0.075 * max(map(len, names), default=1))))
