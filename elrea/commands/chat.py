"""Talks with a finished ensemble, and shows the members that weigh most in each answer.

    elrea chat outputs/<day>/<time>
    echo "What is 2 + 2?" | elrea chat outputs/<day>/<time>

Every line of input is a prompt.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elrea.commands.arguments import ensemble_parser, load_ensemble
from elrea.commands.messages import one_line_errors
from elrea.method.ensemble.decoding_settings import Decoding

if TYPE_CHECKING:
    from elrea.method.ensemble.ensemble import Ensemble, Route

SHOWN = 3
"""Members in the line of weights."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    parser = ensemble_parser("chat", __doc__)
    parser.add_argument(
        "--turns", action="store_true",
        help="one conversation: each prompt sees the prompts and answers before it (default: no)",
    )  # fmt: skip
    parser.add_argument("--system", help="the system prompt (default: none)")
    given = parser.parse_args(argv)
    settings = Decoding(given.max_new_tokens, given.temperature, seed=given.seed)
    ensemble = load_ensemble(given)
    if sys.stdin.isatty():
        print("Type a prompt and press Enter; Ctrl-D ends.")
    talk(ensemble, settings, turns=given.turns, system=given.system)


def talk(
    ensemble: Ensemble, settings: Decoding, *, turns: bool = False, system: str | None = None
) -> None:
    """Answers every line of standard input.

    Args:
        ensemble: The ensemble that answers.
        settings: How tokens are chosen.
        turns: Whether a prompt sees the prompts and answers before it.
        system: The system prompt; blank or None: none.

    Raises:
        DataError: A prompt is too long.
    """
    from elrea.data.examples import Example

    history: list[tuple[str, str]] = [("system", system)] if system and system.strip() else []
    while (line := _read_line()) is not None:
        if not line.strip():
            continue
        prompt = Example("the prompt", line, "", "", history=tuple(history))
        routes = ensemble.route([prompt])
        print(f"[{members(routes[0])}]", flush=True)
        (answer,) = ensemble.generate(
            [prompt],
            settings,
            routes=routes,
            tell=lambda _n, piece: print(piece, end="", flush=True),
        )
        print("\n")
        if turns:
            history += [("user", line), ("assistant", answer)]


def members(route: Route) -> str:
    """The members with the largest weights, as `expert-1 0.65, base 0.20`."""
    largest = sorted(route.weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {weight:.2f}" for name, weight in largest[:SHOWN] if weight)


def _read_line() -> str | None:
    """The next line of standard input; None at its end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.removeprefix("\ufeff").rstrip("\n") if line else None
    try:
        return input("> ")
    except EOFError:
        print()
        return None


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
