"""Feeds every reader with files that are nearly right, for as long as it is told to; each time with other changes.

    make fuzz                       # ten minutes
    make fuzz ARGS='--minutes 60'

Any end but success or an ElreaError of one line is printed, with the smallest change that does it, and makes the
command fail. What was tried goes to fuzz.json beside this file.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import tests.conftest  # noqa: F401  # no network, one thread
from tests.fuzz.readers import READERS, Reader, attempt, prepare
from tests.fuzz.report import conclude

RESULTS = Path(__file__).with_name("fuzz.json")
ROUND = 100
"""Changes to one file before it is another's turn."""


def _round(
    reader: Reader, places: tuple[Path, Path], tried: Counter[str], taken: Counter[str]
) -> Callable[[], None]:
    """Some changes to one reader's file; those of the seed that it is given."""

    @settings(
        max_examples=ROUND, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(st.data())
    def once(data: st.DataObject) -> None:
        tried[reader.name] += 1
        taken[reader.name] += attempt(reader, *places, data)

    return once


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each has the next")
    given_words = parser.parse_args()
    logging.disable()  # what is damaged is said, thousands of times
    began, tried, taken = time.monotonic(), Counter[str](), Counter[str]()
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        places = {
            reader.name: prepare(reader, Path(name) / f"{i}") for i, reader in enumerate(READERS)
        }
        turn = given_words.seed
        while time.monotonic() - began < 60 * given_words.minutes and len(failed) < len(READERS):
            for reader in READERS:
                if reader.name in failed:
                    continue

                try:
                    seed(turn)(_round(reader, places[reader.name], tried, taken))()
                except Exception:
                    failed[reader.name] = traceback.format_exc()
                    print(f"BAD  {reader.name}\n{failed[reader.name][-3000:]}", flush=True)
            turn += 1
            print(
                f"{(time.monotonic() - began) / 60:.1f} min: {tried.total():,} files tried",
                flush=True,
            )
    rows = {
        r.name: {"tried": tried[r.name], "taken": taken[r.name], "failed": r.name in failed}
        for r in READERS
    }
    minutes = round((time.monotonic() - began) / 60, 1)
    conclude(RESULTS, {"minutes": minutes, "rounds": turn - given_words.seed}, rows)


if __name__ == "__main__":
    main()
