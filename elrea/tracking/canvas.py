"""The paper that plots are drawn on: one look, figures of their own, PNG files.

Agg and no pyplot, so that jobs in one process share no state and no display is needed. Colours
are Okabe and Ito's, which colour-blind readers can tell apart; line styles and printed numbers
say the same without colour.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    """Draws on an empty figure and writes it as PNG at 100 dots an inch.

    Args:
        draw: fills the figure.
        path: of the file; its folder is made.
        size: width and height in inches.
        title: above everything.
        note: behind the title and a colon, e.g. "built-in exam, not MMLU".
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.suptitle(f"{title}: {note}" if note else title, x=0.01, ha="left", weight="bold")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
