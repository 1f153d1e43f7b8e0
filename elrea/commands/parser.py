"""A parser of command lines whose errors are one line, like those of a run."""

from __future__ import annotations

import argparse
from typing import NoReturn

from elrea.errors import did_you_mean

UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """argparse's own prints all options before what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the words, and exits with 2 as other programs do."""
        if message.startswith(UNKNOWN):
            options = [name for name in self._option_string_actions if name.startswith("--")]
            word = message.removeprefix(UNKNOWN).split()[0].partition("=")[0]
            message += did_you_mean(word, options) if word.startswith("-") else ""
        self.exit(2, f"error: {self.prog}: {message} (`{self.prog} --help` lists what it takes)\n")
