"""Talks with a finished ensemble, and shows which of its members answer.

python -m elrea.chat outputs/<day>/<time>
echo "What is 2 + 2?" | python -m elrea.chat outputs/<day>/<time>
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from elrea.commands.messages import told

if TYPE_CHECKING:
    from elrea.method.ensemble.ensemble import Ensemble, Route

SHOWN = 3
"""Members that a line of weights names."""


def main() -> None:
    parser = command("chat", __doc__)
    parser.add_argument("--turns", action="store_true", help="every line goes on from those before")
    given = parser.parse_args()
    ensemble = opened(given)
    if sys.stdin.isatty():
        print("A line is a prompt; Ctrl-D ends.")
    talk(ensemble, given)


def talk(ensemble: Ensemble, given: argparse.Namespace) -> None:
    """Answers line after line until there is none."""
    from elrea.data.examples import Example
    from elrea.method.ensemble.decoding import Decoding

    settings = Decoding(given.max_new_tokens, given.temperature, seed=given.seed)
    history: list[tuple[str, str]] = []
    while (line := _line()) is not None:
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
        if given.turns:
            history += [("user", line), ("assistant", answer)]


def command(name: str, description: str | None, *, writes: bool = True) -> argparse.ArgumentParser:
    """A parser of `python -m elrea.<name>` with what every command on a finished ensemble takes.

    Args:
        name: The command's.
        description: What `--help` opens with.
        writes: Whether it writes answers, and takes how.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m elrea.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, help="a run's folder, as outputs/<day>/<time>, or its ensemble/"
    )
    parser.add_argument("--backbone", help="folder or hub id of the model, if it has moved")
    parser.add_argument("--top-k", type=int, help="the k nearest experts alone (all)")
    if not writes:
        return parser
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, help="of an answer, at most (128)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the likeliest token (0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    return parser


def opened(given: argparse.Namespace) -> Ensemble:
    """The ensemble of a run, on the backbone that the run had."""
    from elrea.pipeline.assemble import ensemble_of

    return ensemble_of(given.run, given.backbone, top_k=given.top_k)


def members(route: Route) -> str:
    """The members that weigh most, with their weights."""
    most = sorted(route.weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {weight:.2f}" for name, weight in most[:SHOWN] if weight)


def _line() -> str | None:
    """The next line of input, None at its end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.removeprefix("\ufeff").rstrip("\n") if line else None
    try:
        return input("> ")
    except EOFError:
        print()
        return None


if __name__ == "__main__":
    with told():
        main()
