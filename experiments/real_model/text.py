"""Writes the real text of `make run-real` as JSON lines in the layout of data=jsonl: train, dev and test.

    python -m experiments.real_model.text data/real_model

Without ELREA_DATA the questions are made from the installed packages' data (`experiments.real_model.installed`), as
multiple choice with four options; with it they are drawn from the published data sets in that folder
(`experiments.real_model.published`). The same seed writes the same bytes, as long as packages and data are the same.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from elrea.errors import ElreaError
from experiments.real_model.installed import SOURCES, Fact, facts
from experiments.real_model.split_rows import Row, Text, counted

SPLITS = ("train", "dev", "test")
SIZES = {"train": 28, "dev": 6, "test": 14}
"""Questions of a source in each split; a source with fewer questions is divided in these proportions."""
OPTIONS = 4


def installed_text(seed: int) -> Text:
    """Multiple-choice questions from the installed packages' data; a source whose data is not here is named."""
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    missing = []
    for source in SOURCES:
        found = facts(source)
        if not found:
            missing.append(source)
        for split, part in divided(found, f"{source}/{seed}").items():
            splits[split] += asked(part, source, f"{source}/{split}/{seed}")
    lines = [counted("Real text from Python's and the installed packages' own data", splits)]
    if missing:
        lines.append(f"Left out: {', '.join(missing)}, whose data is not on this machine")
    lines.append(
        "For published data instead, let ELREA_DATA name a folder with mmlu/, gsm8k/, flan_cot/, mathqa/, t0/, ...,"
        " each in its original layout: make run-real ELREA_DATA=path/to/data"
    )
    return Text(splits, tuple(lines))


def divided(questions: Sequence[Fact], seed: str) -> dict[str, list[Fact]]:
    """Draws each split's questions; no question is in two splits."""
    drawn = list(questions)
    random.Random(seed).shuffle(drawn)
    share = min(1.0, len(drawn) / sum(SIZES.values()))
    found, start = {}, 0
    for name, size in SIZES.items():
        end = start + int(share * size)
        found[name], start = drawn[start:end], end
    return found


def asked(questions: Sequence[Fact], source: str, seed: str) -> list[Row]:
    """The questions as rows, each with three wrong options; every place among the options is right equally often."""
    rng = random.Random(seed)
    places = [number % OPTIONS for number in range(len(questions))]
    rng.shuffle(places)
    rows = []
    for number, (fact, place) in enumerate(zip(questions, places, strict=True)):
        choices = rng.sample(fact.wrong, OPTIONS - 1)
        choices.insert(place, fact.answer)
        rows.append(
            {
                "id": f"{source}-{number}", "source": source, "instruction": fact.question,
                "choices": choices, "answer": place,
            }
        )  # fmt: skip
    return rows


def text(seed: int = 0) -> Text:
    """The text of this machine: ELREA_DATA's if it is set.

    Raises:
        DataError: ELREA_DATA names no folder with published data, or a file in it is not in its layout.
    """
    place = os.environ.get("ELREA_DATA")
    if not place:
        return installed_text(seed)
    from experiments.real_model.published import published_text

    return published_text(Path(place), seed)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files and says what is in them."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.real_model.text", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="for train.jsonl, dev.jsonl and test.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    given = parser.parse_args(argv)
    try:
        made = text(given.seed)
        made.write(given.folder)
    except ElreaError as error:
        sys.exit(f"error: {error}")
    print("\n".join(made.lines))


if __name__ == "__main__":
    main()
