"""Talks with a finished ensemble, and shows the members that weigh most in each answer.

    elrea chat outputs/<day>/<time>
    echo "What is 2 + 2?" | elrea chat outputs/<day>/<time>

Every line of input is a prompt. In a terminal they are one conversation: each prompt sees those
before it and their answers. /new begins another one, /help lists the commands, Ctrl-C stops an
answer. Lines from a file or a pipe are answered one by one, unless --turns is given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elrea.commands.arguments import ensemble_parser, load_ensemble
from elrea.commands.exit import INTERRUPTED, one_line_errors
from elrea.errors import ConfigError, DataError, did_you_mean
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.store.files import is_text

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.method.ensemble.ensemble import Ensemble, Route

SHOWN = 3
"""Members in the line of weights."""
COMMANDS = {
    "/new": "begin a new conversation",
    "/help": "show this list",
    "/exit": "leave (as Ctrl-D)",
}
"""What may be typed in a terminal instead of a prompt."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    parser = ensemble_parser("chat", __doc__)
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--turns", action="store_true",
        help="one conversation: each prompt sees those before it (default: in a terminal only)",
    )  # fmt: skip
    kept.add_argument(
        "--no-history", action="store_true", help="answer each prompt alone, in a terminal too"
    )
    parser.add_argument("--system", default="", help="system prompt: the conversation's first turn")
    given = parser.parse_args(argv)
    settings = Decoding(given.max_new_tokens, given.temperature, seed=given.seed)
    if not is_text(given.system):
        raise ConfigError("--system: not UTF-8 text")
    ensemble = load_ensemble(given)
    typed = sys.stdin.isatty()
    if typed:
        with suppress(ImportError):
            import readline  # noqa: F401  (gives `input` line editing and earlier lines)
        print("Type a prompt and press Enter; /help lists commands, Ctrl-D ends.")
    turns = given.turns or (typed and not given.no_history)
    talk(ensemble, settings, turns=turns, system=given.system)


@dataclass
class Conversation:
    """The turns before the next prompt.

    Attributes:
        system: The system prompt; "" for none.
        keeps: Whether prompts and answers are kept.
        turns: Pairs (role, text) of user and assistant in turn.
    """

    system: str = ""
    keeps: bool = False
    turns: list[tuple[str, str]] = field(default_factory=list)

    def prompt(self, line: str) -> Example:
        """The next prompt with the turns before it."""
        from elrea.data.examples import Example

        first = [("system", self.system)] if self.system.strip() else []
        return Example("the prompt", line, "", "", history=(*first, *self.turns))

    def fitting(self, line: str, ensemble: Ensemble, settings: Decoding) -> Example:
        """The next prompt with as many of the latest turns as fit; says how many it forgets.

        Raises:
            DataError: It does not fit without them either.
        """
        kept = list(self.turns)
        while True:
            try:
                ensemble.check([self.prompt(line)], settings)
                break
            except DataError:
                if not self.turns:
                    self.turns = kept
                    raise
                del self.turns[:2]
        if lost := (len(kept) - len(self.turns)) // 2:
            print(
                f"(forgets the first {lost} of {len(kept) // 2} turns: too long)", file=sys.stderr
            )
        return self.prompt(line)

    def add(self, line: str, answer: str) -> None:
        """Keeps a prompt and its answer, without the white space round it: templates put their own between turns."""
        if self.keeps:
            self.turns += [("user", line), ("assistant", answer.strip())]


def talk(ensemble: Ensemble, settings: Decoding, *, turns: bool = False, system: str = "") -> None:
    """Answers every line of standard input.

    Args:
        ensemble: The ensemble that answers.
        settings: How tokens are chosen.
        turns: Whether a prompt sees the prompts and answers before it.
        system: The system prompt; "" for none.

    Raises:
        DataError: A prompt is too long; in a terminal that is said, and the next one is read.
    """
    typed = sys.stdin.isatty()
    conversation = Conversation(system, turns)
    while (line := _read_line()) is not None:
        if not line.strip():
            continue
        if typed and line.startswith("/"):
            if line.strip() == "/exit":
                return
            _obey(line.strip(), conversation)
            continue
        try:
            _answer(line, ensemble, settings, conversation, stoppable=typed)
        except DataError as error:
            if not typed:
                raise
            print(f"error: {error}", file=sys.stderr)


def _obey(command: str, conversation: Conversation) -> None:
    """Does what a line that begins with "/" asks for."""
    if command == "/new":
        conversation.turns.clear()
        print("(a new conversation)")
        return
    if command != "/help":
        print(
            f"{command}: no such command{did_you_mean(command, COMMANDS)}; a prompt that begins with / needs a space "
            "before it"
        )
    print("\n".join(f"{name:6} {line}" for name, line in COMMANDS.items()))


def _answer(
    line: str,
    ensemble: Ensemble,
    settings: Decoding,
    conversation: Conversation,
    *,
    stoppable: bool,
) -> None:
    """Prints the answer to a prompt while it is written; if it may be stopped, Ctrl-C keeps what is there."""
    pieces: list[str] = []

    def show(_number: int, piece: str) -> None:
        pieces.append(piece)
        print(piece, end="", flush=True)

    try:
        prompt = conversation.fitting(line, ensemble, settings)
        routes = ensemble.route([prompt])
        print(f"[{members(routes[0])}]", flush=True)
        (answer,) = ensemble.generate([prompt], settings, routes=routes, tell=show)
    except KeyboardInterrupt:
        if not stoppable:
            raise
        print("\n(stopped)\n")
        answer = "".join(pieces)
        if not answer:
            return
    else:
        print("\n")
    conversation.add(line, answer)


def members(route: Route) -> str:
    """The members with the largest weights, as `expert-1 0.65, base 0.20`."""
    largest = sorted(route.weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {weight:.2f}" for name, weight in largest[:SHOWN] if weight)


def _read_line() -> str | None:
    """The next line of standard input; None at its end. Ctrl-C at a terminal's prompt ends the process."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.removeprefix("\ufeff").rstrip("\n") if line else None
    try:
        return input("> ")
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print()
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
