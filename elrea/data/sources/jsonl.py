"""The user's own instruction files as train and test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from elrea.data.corpus import Corpus, Splits
from elrea.data.drops import Drops
from elrea.data.options import Options
from elrea.data.overlap.held_out import Overlap, resolve_overlap
from elrea.data.readers.jsonl import BadRows, read_files
from elrea.data.readers.layouts import Layout
from elrea.data.readers.rows import RowReader
from elrea.data.readers.turns import LearnedTurns
from elrea.data.sampling import split, subset, with_shots
from elrea.data.sources.base import Limits, corpus_of
from elrea.errors import ConfigError, DataError


@dataclass
class Jsonl(Limits, Layout):
    """Instruction files: JSON lines, JSON, CSV, TSV or Parquet, one example a row.

    A row has instruction and response (also by Alpaca's and LLM-Adapters' names), prompt and completion (texts or lists
    of messages), chat messages (OpenAI's or ShareGPT's), or the layout of ARC, OpenBookQA, CommonsenseQA, HellaSwag or
    self-instruct's seed tasks; `system` and `history` are LLaMA-Factory's. A row with choices and answer is scored as
    multiple choice, any other by exact match. A row with `text` alone is language modelling, scored by its loss.
    """

    train: str | list[str] | None = None
    """Files, or folders of which all *.jsonl files are read, or all data files if there are no *.jsonl. Required."""
    test: str | list[str] | None = None
    """As `train`. None: `test_share` of train's questions are held out."""
    dev: str | list[str] | None = None
    """As `train`: for choosing settings, and to take shots from. None: there is no dev split."""
    fields: dict[str, str | list[str] | None] = field(default_factory=dict)
    """Other field names, role -> name in the file: {instruction: question, response: solution}. Roles: instruction,
    input, response, messages, system, history, choices, answer, source, category, id, judge, text. Choices with a
    column each are a list: {choices: [A, B, C, D]}."""
    ignore: list[str] = field(default_factory=list)
    """Fields of a row, and keys of a message, to skip; ["*"] skips every field without a role. A field that is neither
    known nor listed here is an error, because it may hold a part of the question."""
    bad_rows: BadRows = "refuse"
    """What to do with a row that cannot be used, such as one with an empty response: "refuse" the data, or "drop" the
    row and count it."""
    turns: LearnedTurns = "last"
    """Assistant turns of a chat that carry loss in training: the "last", or "all", each with the end of turn that the
    template writes. A message's weight of 0 (or train: false) takes the loss from it."""
    options: Options = "letters"
    """How a row with choices is asked. "letters": the choices stand in the prompt as "A. ...", and the answer is a
    letter, as in MMLU. "text": the answer is a choice's text, which the prompt does not show."""
    test_share: float = 0.1
    """Share of train's questions that become test if no test file is given; 0.1 is a common choice."""
    overlap: Overlap = "refuse"
    """What to do with a test question that is also in train or dev, or a dev question in train: "refuse" the data, or
    "drop" and count the copy there."""
    shots: int = 0
    """Solved examples before each test question, drawn once from dev, or from train if there is no dev. Instruction
    data is usually scored without."""

    name: ClassVar[str] = "jsonl"
    title: ClassVar[str] = "instruction data"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("messages",),
        ("conversations",),
        ("question", "choices", "answerKey"),
        ("ctx", "endings", "label"),
        ("prompt", "completion"),
        ("instruction",),
    )

    def load(self) -> Corpus:
        """Read the files, hold out test, resolve overlap, limit and check.

        Raises:
            DataError: a problem in the files, with file and line, or test questions in train.
            ConfigError: a limit, a share or the number of shots is out of range.
        """
        splits = self.hold_out(self.read())
        if not self.allow_overlap:
            splits = resolve_overlap(splits, self.overlap, "data=jsonl")
        splits = self.give_shots(self.limit(splits))
        several = len({example.source for example in splits.test}) > 1
        tasks: Literal["category", "source"] = "source" if several else "category"
        return corpus_of("jsonl", splits, tasks, self.options)

    def give_shots(self, splits: Splits) -> Splits:
        """The splits with `shots` solved examples before each test question; call it after the limits.

        Raises:
            ConfigError: `shots` is below 0, or more than there are examples to take.
        """
        if self.shots < 0:
            raise ConfigError(f"data.shots={self.shots} must be 0 or more")
        if not self.shots:
            return splits
        solved = [e for e in splits.dev or splits.train if not (e.history or e.plain_text)]
        # One more than needed, because a question is never its own shot.
        pool = subset(solved, self.shots + 1, self.seed, "shots")
        if len(pool) < self.shots:
            raise ConfigError(
                f"data.shots={self.shots}: {'dev' if splits.dev else 'train'} has {len(pool)} examples without earlier"
                " turns to use as shots"
            )
        test = (e if e.plain_text else with_shots(e, pool, self.shots) for e in splits.test)
        return replace(splits, test=tuple(test))

    def read(self) -> Splits:
        """Read all files.

        Raises:
            DataError: a problem in the files, with file and line.
        """
        if not self.train:
            raise DataError(
                "data=jsonl needs data.train: one or more .jsonl files or folders of them, e.g."
                " data.train=mine.jsonl"
            )
        reader = RowReader(self.fields, self.ignore, self.turns, self.options)
        settings = {"data.train": self.train, "data.dev": self.dev, "data.test": self.test}
        drops = Drops()
        train, dev, test = read_files(settings, reader, drops, self.bad_rows).values()
        return Splits(train, dev, test, drops, "own instruction data")

    def hold_out(self, splits: Splits) -> Splits:
        """Hold test out of train by question if there is no test file."""
        if splits.test:
            return splits
        train, test = split(splits.train, self.test_share, self.seed)
        note = f"{splits.note}, {self.test_share:.0%} of the questions held out as test"
        return replace(splits, train=train, test=test, note=note)

    def is_located(self) -> bool:
        """Whether the settings say where the data is."""
        return bool(self.train)

    def at(self, folder: Path) -> Self:
        """A copy that reads train from a folder."""
        return replace(self, train=str(folder))

    def on_hub(self) -> Self:
        """The same settings: a user's own files are not on the hub."""
        return self
