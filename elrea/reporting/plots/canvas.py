"""Saves plots as PNG files in one common style, with legends below the plot.

Plots are narrow enough for a phone: panels are placed below each other.

They use Agg without pyplot, so that jobs in one process share no state and no display is needed. The colours
are Okabe and Ito's, which colour-blind readers can distinguish; line styles, markers and printed numbers
carry the same information without colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

WIDTH = 6.0
"""Default width of a plot in inches."""
DOTS = 144
"""Dots per inch; enough for screens with a high resolution."""
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
        draw: Draws on the figure that it is given.
        path: Of the PNG; its folder is created.
        size: Width and height in inches; further lines of the title are added to the height.
        title: Above the plot; wrapped.
        note: Appended to the title after a colon, e.g. "built-in exam, not MMLU".
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
    """Adds a legend below a figure; inside, it would cover lines or points."""
    figure.legend(
        loc="outside lower left",
        ncols=_columns(names),
        fontsize=8,
        markerscale=1.3,
        edgecolor="none",
    )


def legend_height(names: Collection[str]) -> float:
    """Height of the legend in inches."""
    return 0.1 + 0.18 * -(-len(names) // _columns(names))


def _columns(names: Iterable[str]) -> int:
    """Number of legend columns that fit into `WIDTH`."""
    return max(1, int(WIDTH / (0.6 + 0.075 * max(map(len, names), default=1))))
