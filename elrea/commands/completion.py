"""Completion in the shell: Hydra's scripts ask `elrea -sc query=<shell>`, of which `elrea run` answers.

eval "$(elrea -sc install=bash)"
"""

from __future__ import annotations

import os
from collections.abc import Iterable

OPTIONS = ("-sc", "--shell-completion")
LINE = "COMP_LINE"
"""Variable with the command line so far."""


def words_of_run(words: list[str], commands: Iterable[str]) -> list[str] | None:
    """The words for `elrea run`, with the line as it would be without `run`; None where it is answered already: while
    the command itself is typed, and for other commands, which have no groups.

    Args:
        words: After `elrea`.
        commands: That there are.
    """
    typed = os.environ.get(LINE, "").split(" ", 2)
    if len(typed) > 2 and typed[1] == "run":
        os.environ[LINE] = f"{typed[0]} {typed[2]}"
    elif any(word.startswith("query=") for word in words):
        print(" ".join(commands) if len(typed) == 2 else "")
        return None
    return words
