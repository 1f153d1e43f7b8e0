"""MMLU from its original CSV files, with training on other instruction data, as the paper does."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from elrea.data.examples import Corpus, Example
from elrea.data.jsonl import read_files
from elrea.data.rows import RowReader
from elrea.data.sampling import subset, with_shots
from elrea.errors import ConfigError, DataError

LETTERS = ("A", "B", "C", "D")
_HEADER = "The following are multiple choice questions (with answers) about {}."


@dataclass
class Mmlu:
    """MMLU (Hendrycks et al., 2021) as the test, other instruction files as train.

    Reads root/test/<subject>_test.csv, root/dev/<subject>_dev.csv (the shots) and, where it is
    there, root/val/<subject>_val.csv, which then is the corpus' dev split; without it the dev
    files are, each question with its subject's others as shots. Rows have no header: question,
    four options, letter.
    """

    root: str | None = None
    """Folder that holds dev/ and test/. Required."""
    train: str | list[str] | None = None
    """Instruction files (.jsonl), or folders of them, to fine-tune on. Required: MMLU has no
    training questions of its own kind."""
    subjects: str | list[str] = "all"
    """"all", or the names of some subjects as in the file names, e.g. [astronomy, virology]."""
    shots: int = 5
    """Solved questions of the same subject before each test question; 5 is MMLU's usual."""
    fields: dict[str, str | None] = field(default_factory=dict)
    """Other names of the fields of `train`, as in data=jsonl."""
    ignore: list[str] = field(default_factory=list)
    """Fields of `train` to pass over, as in data=jsonl."""
    limit_train: int | None = None
    """At most so many training examples, drawn by `seed`; None takes all."""
    limit_test: int | None = None
    """At most so many test questions, drawn by `seed`; None takes all (14,042)."""
    seed: int = 0
    """Of the limits. Not the run's seed: runs of several seeds are then scored on the same
    questions."""
    allow_overlap: bool = False
    """Let test questions stand in train. Off: scores on questions seen in training say little."""

    def load(self) -> Corpus:
        """Read and check.

        Raises:
            DataError: a setting is missing, or anything is wrong with the files, with file and
                line.
            ConfigError: a limit or the number of shots is out of range.
        """
        if not self.root:
            raise DataError(
                "data=mmlu needs data.root: the folder that holds MMLU's dev/ and test/"
            )
        if not self.train:
            raise DataError(
                "data=mmlu needs data.train: MMLU has nothing to train on; give one or more .jsonl"
                " instruction files or folders of them"
            )
        if self.shots < 0:
            raise ConfigError(f"data.shots={self.shots} must be 0 or more")
        root = Path(self.root)
        subjects = self._subjects(root)
        dev, test = self._questions(root, subjects)
        reader = RowReader(self.fields, self.ignore)
        train = read_files({"data.train": self.train}, reader)["data.train"]
        Corpus("mmlu", train, dev, test).check(self.allow_overlap)
        return Corpus(
            "mmlu",
            subset(train, self.limit_train, self.seed, "train"),
            dev,
            subset(test, self.limit_test, self.seed, "test"),
            note=f"MMLU, {len(subjects)} of its subjects, {self.shots}-shot; trained on other data",
        )

    def _subjects(self, root: Path) -> list[str]:
        """The subjects asked for, of those that have a test file."""
        folder = root / "test"
        for path in (root, folder):
            if not path.is_dir():
                raise DataError(f"{path}: no such folder (data.root holds MMLU's dev/ and test/)")
        suffix = "_test.csv"
        there = sorted(p.name.removesuffix(suffix) for p in folder.glob(f"*{suffix}"))
        if not there:
            raise DataError(f"{folder}: no file <subject>_test.csv in this folder")
        wanted = [self.subjects] if isinstance(self.subjects, str) else self.subjects
        if list(wanted) == ["all"]:
            return there
        for subject in wanted:
            if subject not in there:
                near = difflib.get_close_matches(subject, there, n=1, cutoff=0.0)[0]
                raise DataError(
                    f"data.subjects: {folder} has no subject {subject!r}; did you mean {near!r}?"
                )
        if not wanted:
            raise DataError("data.subjects is empty; name subjects or set it to all")
        return sorted(set(wanted))

    def _questions(
        self, root: Path, subjects: Sequence[str]
    ) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Dev and test questions with their shots, subject by subject."""
        dev: list[Example] = []
        test: list[Example] = []
        for subject in subjects:
            solved = self._solved(root, subject)
            val = root / "val" / f"{subject}_val.csv"
            tuned = read_csv(val, subject, "val") if val.is_file() else solved
            asked = read_csv(root / "test" / f"{subject}_test.csv", subject, "test")
            dev += [with_shots(example, solved, self.shots) for example in tuned]
            test += [with_shots(example, solved, self.shots) for example in asked]
        return tuple(dev), tuple(test)

    def _solved(self, root: Path, subject: str) -> list[Example]:
        """The questions that shots are taken from."""
        file = root / "dev" / f"{subject}_dev.csv"
        if not file.is_file():
            if self.shots:
                raise DataError(f"{file}: no such file; add it or set data.shots=0")
            return []
        solved = read_csv(file, subject, "dev")
        if len(solved) < self.shots:
            raise DataError(
                f"{file}: {len(solved)} rows, and data.shots={self.shots} asks for more"
            )
        return solved


def read_csv(file: Path, subject: str, split: str) -> list[Example]:
    """Read one subject's file.

    Args:
        file: rows of question, options A to D and the answer's letter; questions may span lines
            in quotes.
        subject: as in the file's name.
        split: for the ids, "mmlu/<split>/<subject>/<row, counted from 0>".

    Raises:
        DataError: no rows, not UTF-8, broken quotes, not six columns, an empty question, or an
            answer that is no letter from A to D; with file and line.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")  # some original files have a mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}:{line}: not UTF-8; save it as UTF-8") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    examples: list[Example] = []
    line = 1
    try:
        for row in rows:
            if row:
                examples.append(_example(row, f"{file}:{line}", subject, split, len(examples)))
            line = rows.line_num + 1  # where the next row begins
    except csv.Error as error:
        raise DataError(f"{file}:{line}: broken CSV ({error})") from error
    if not examples:
        raise DataError(f"{file}: the file is empty; remove it or fill it")
    return examples


def _example(row: list[str], where: str, subject: str, split: str, index: int) -> Example:
    if len(row) != len(LETTERS) + 2:
        raise DataError(
            f"{where}: {len(row)} columns; there must be 6: question, A, B, C, D, answer"
        )
    question, *options, letter = (cell.strip() for cell in row)
    if letter not in LETTERS:
        raise DataError(f"{where}: the answer {letter!r} is outside the options A, B, C, D")
    if not question:
        raise DataError(f"{where}: the question is empty")
    lines = [question, *(f"{a}. {b}" for a, b in zip(LETTERS, options, strict=True)), "Answer:"]
    return Example(
        id=f"mmlu/{split}/{subject}/{index}",
        instruction="\n".join(lines),
        response=letter,
        source="mmlu",
        category=subject,
        choices=LETTERS,
        header=_HEADER.format(subject.replace("_", " ")),
    )
