"""Columns that a text takes on a terminal: two for a Chinese character, none for an accent."""

from __future__ import annotations


def columns(text: str) -> int:
    """Number of columns of a text."""
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """The text in exactly `width` columns, with spaces after it or without its end."""
    from rich.cells import set_cell_size

    return set_cell_size(text, width)


def shortened(text: str, width: int) -> str:
    """The text in at most `width` columns; "..." stands for what is cut off."""
    return text if columns(text) <= width else padded(text, width - 3).rstrip() + "..."
