"""Draws a small mix from the published data sets in a folder, for `make run-real` with ELREA_DATA.

The sources of data=mix read them, hold out test questions where there is no test split, and drop from train what a test
asks. MMLU is one more: its dev questions are to train on. Nothing trains on a test set, and BIG-Bench Hard, which is
nothing else, is not used.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from elrea.commands.config_files import config_folder
from elrea.config import build
from elrea.data.corpus import Splits
from elrea.data.sampling import split
from elrea.data.sources.base import Source
from elrea.data.sources.mix import Mix
from elrea.data.sources.mmlu import Mmlu
from elrea.errors import ConfigError, DataError
from elrea.pipeline.hydra_base import hydra_base
from experiments.real_model.split_rows import Row, Text, counted

if TYPE_CHECKING:
    from elrea.data.examples import Example

MOST = 480
"""Characters of question and answer together; longer examples are not drawn."""
TOKENS = {"train": 20_000, "dev": 4_300, "test": 9_800}
"""Tokens of each split, about: what the made text of the installed packages has. Every source has the same share."""
PER_TOKEN, TEMPLATE = 3.2, 32
"""Characters per token, and tokens that a chat template adds to an example, about."""
DEV = 0.15
"""Share of the training questions that are held out for dev."""


@dataclass
class MmluQuestions(Source):
    """MMLU without shots: its dev questions (5 of each subject) as train, its test questions as test."""

    name: ClassVar[str] = "mmlu"
    title: ClassVar[str] = "MMLU"
    public: ClassVar[str] = ""
    holds: ClassVar[str] = Mmlu.holds

    def read(self) -> Splits:
        """All questions of the subjects that are there.

        Raises:
            DataError: As `Mmlu.questions`.
        """
        files = sorted((Path(self.root or "") / "test").glob("*_test.csv"))
        subjects = [file.name.removesuffix("_test.csv") for file in files] or "all"
        found = Mmlu(root=self.root, subjects=subjects, shots=0).questions()
        return Splits(found.dev, (), found.test, note=found.note)


def published_text(root: Path, seed: int) -> Text:
    """Rows of every source that has a folder in `root`.

    Raises:
        DataError: There is no such folder, none of the sources is in it, or a file is not in its layout.
    """
    instead = "or unset ELREA_DATA for text from the installed packages"
    if not root.is_dir():
        raise DataError(
            f"ELREA_DATA={root}: no such folder; name the one that holds mmlu/, gsm8k/, ..., {instead}"
        )
    mix = _mix(root, seed)
    here = [name for name in mix.sources if (root / name).exists()]
    if not here:
        raise DataError(
            f"ELREA_DATA={root}: has none of the folders {', '.join(mix.sources)}; name the one that holds"
            f" them, {instead}"
        )
    try:
        corpus = mix.load()
    except (DataError, ConfigError) as error:
        raise DataError(
            f"ELREA_DATA={root}: {_in_terms_of_folders(str(error))}; mend or remove that folder, {instead}"
        ) from error
    train, dev = split(corpus.train, DEV, seed)
    examples = {"train": train, "dev": dev, "test": corpus.test}
    splits: dict[str, list[Row]] = {}
    for name, most in TOKENS.items():
        rows = splits[name] = []
        for source in here:
            theirs = [e for e in examples[name] if e.source == source]
            rows += _drawn(theirs, most / len(here), f"{source}/{name}/{seed}")
    drawn = (
        f"Of each source some questions are drawn, of at most {MOST} characters with their answers"
    )
    if not (splits["train"] and splits["test"]):
        raise DataError(
            f"ELREA_DATA={root}: {', '.join(here)} have no questions to train on and to test, of at most {MOST}"
            f" characters with their answers; add another folder, {instead}"
        )
    used = {row["source"] for row in splits["train"]}
    without = ", ".join(name for name in mix.sources if name not in used)
    lines = [
        counted(f"Published data of {root}", splits),
        f"{drawn}; to train on there are none of {without}" if without else drawn,
    ]
    return Text(splits, (*lines, *corpus.left_out))


def _mix(root: Path, seed: int) -> Mix:
    """data=mix with MMLU as one more source."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), **hydra_base()):
        mix: Mix = build(compose("config", ["data=mix"]).data, "data", Mix)
    sources = {"mmlu": MmluQuestions(overlap="drop"), **mix.sources}
    folder = root / "mathqa"
    if folder.is_dir() and not any(folder.glob("train.*")):
        sources["mathqa"] = replace(sources["mathqa"], train_split="dev")
    return replace(mix, root=str(root), sources=sources, seed=seed, overlap="drop")


def _drawn(examples: Sequence[Example], tokens: float, seed: str) -> list[Row]:
    """Rows of examples in a random order, until their tokens are spent."""
    order = [e for e in examples if not (e.history or e.plain_text) and _length(e) <= MOST]
    random.Random(seed).shuffle(order)
    rows: list[Row] = []
    for example in order:
        tokens -= _length(example) / PER_TOKEN + TEMPLATE
        if tokens < 0:
            break
        rows.append(_row(example))
    return rows


def _length(example: Example) -> int:
    return len(example.instruction) + len(example.response)


def _row(example: Example) -> Row:
    row: Row = {"id": example.id, "source": example.source, "instruction": example.instruction}
    if example.category:
        row["category"] = example.category
    if example.judge:
        row["judge"] = example.judge
    if example.choices:
        return {**row, "choices": list(example.choices), "answer": example.answer}
    return {**row, "response": example.response}


def _in_terms_of_folders(error: str) -> str:
    """An error of a source without settings that `make run-real` does not have."""
    error = re.sub(r"data\.sources\.(\w+)(?:\.root\b|(?=:))", r"\1/", error)
    return re.sub(r"; [^;]*\bdata\.(?:sources|\w+=).*", "", error)
