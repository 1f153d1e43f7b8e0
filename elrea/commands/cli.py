"""The command line `elrea <command> ...`: imports the command's module and calls its `main`.

A module is imported only when its command is called, so that `elrea --help` does not wait for torch or Hydra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from elrea.commands import completion
from elrea.commands.exit import one_line_errors
from elrea.commands.parser import Parser
from elrea.errors import ConfigError, did_you_mean
from elrea.models.device import idle_threads_sleep
from elrea.version import __version__

COMMANDS = {
    "run": ("run", "train an ensemble and score it, or run a sweep (the same as run.py)"),
    "chat": ("chat", "talk with a finished ensemble"),
    "predict": ("predict", "answer a file of prompts with a finished ensemble"),
    "merge": ("merge", "merge LoRA adapters, an ensemble's or others, into one"),
    "export": ("export", "write an ensemble for PEFT, transformers or llama.cpp"),
    "push": ("push", "upload a finished ensemble to the Hugging Face hub"),
    "route-proxy": ("route_proxy", "route requests to an engine that serves the experts"),
    "neighbours": ("neighbours", "list the training examples nearest to a prompt by gradient"),
    "compare": ("compare", "test whether one strategy is better than another, over seeds"),
    "store": ("store", "list, verify and clean up the store of finished stages"),
    "dashboard": ("dashboard", "make a W&B dashboard of a project's runs"),
    "combine": ("combine", "write the math data sets as one set of JSON lines"),
    "harness": ("harness", "evaluate a finished ensemble with lm-evaluation-harness"),
}
"""Command -> module in this package, and its line in `elrea --help`."""
RESUMABLE = ("run", "predict")
"""Commands that resume where they were stopped."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command; an error that the user can fix is one line on stderr and exit code 1.

    Args:
        argv: The words after `elrea`; None: those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command, *rest = words or [""]
    with one_line_errors(resumable=command in RESUMABLE):
        if command in completion.OPTIONS:
            found = completion.words_of_run(words, COMMANDS)
            if found is None:
                return
            command, rest = "run", found
        if not command or command.startswith("-"):
            parser = _parser()
            parser.parse_args(words)
            parser.print_help(sys.stderr)
            sys.exit(2)
        if command not in COMMANDS:
            raise ConfigError(
                f"elrea {command}: no such command{did_you_mean(command, COMMANDS)} (`elrea --help` lists them)"
            )
        module, _ = COMMANDS[command]
        # A run decides itself: on cores of its own it is faster with threads that spin.
        if command != "run":
            idle_threads_sleep()
        import_module(f"elrea.commands.{module}").main(rest)


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<12}{line}" for name, (_, line) in COMMANDS.items())
    parser = Parser(
        prog="elrea",
        usage="elrea <command> ...",
        description="Ensembles of Low-Rank Expert Adapters (ELREA).\n\n"
        f"commands:\n{lines}\n\n`elrea <command> --help` says what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"elrea {__version__}")
    return parser


if __name__ == "__main__":
    main()
