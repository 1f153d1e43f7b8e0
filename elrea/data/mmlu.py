"""MMLU from its original CSV files, with training on other instruction data, as the paper does."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from elrea.data.benchmark import Benchmark
from elrea.data.examples import Example
from elrea.data.layouts import looks_like, place_looks_like
from elrea.data.parts import Parts
from elrea.data.sampling import with_shots
from elrea.data.tables import Row
from elrea.errors import ConfigError, DataError

LETTERS = ("A", "B", "C", "D")
_HEADER = "The following are multiple choice questions (with answers) about {}."

Questions = dict[str, list[Example]]
"""By subject."""


@dataclass
class Mmlu(Benchmark):
    """MMLU (Hendrycks et al., 2021) as the test, other instruction files as train.

    Reads root/test/<subject>_test.csv, root/dev/<subject>_dev.csv (the shots) and, where it is
    there, root/val/<subject>_val.csv, which then is the corpus' dev split; without it the dev
    files are, each question with its subject's others as shots. Rows have no header: question,
    four options, letter.
    """

    subjects: str | list[str] = "all"
    """"all", or the names of some subjects as in the file names, e.g. [astronomy, virology]."""
    shots: int = 5
    """Solved questions of the same subject before each test question; 5 is MMLU's usual."""

    name: ClassVar[str] = "mmlu"
    title: ClassVar[str] = "MMLU"
    public: ClassVar[str] = "cais/mmlu"
    holds: ClassVar[str] = "MMLU's dev/ and test/"
    whole: ClassVar[int] = 57

    def questions(self) -> Parts:
        """Dev and test questions with their shots, subject by subject.

        Raises:
            DataError: a subject is not there, or anything is wrong with the files, with file and line.
            ConfigError: the number of shots is out of range.
        """
        if self.shots < 0:
            raise ConfigError(f"data.shots={self.shots} must be 0 or more")
        place = self.place()
        if place is None:
            test, val, solved = (self._downloaded(split) for split in ("test", "validation", "dev"))
            subjects = self.chosen(self.subjects, sorted(test), "subject")
        else:
            subjects = self.chosen(self.subjects, _there(place), "subject")
            test, val, solved = (_files(place, subjects, split) for split in ("test", "val", "dev"))
        dev_made: list[Example] = []
        test_made: list[Example] = []
        for subject in subjects:
            shown = solved.get(subject, [])
            if len(shown) < self.shots:
                where = (
                    place / "dev" / f"{subject}_dev.csv"
                    if place
                    else f"{self.hub_name} dev, {subject}"
                )
                raise DataError(
                    f"{where}: {len(shown)} rows, and data.shots={self.shots} asks for more"
                    if shown
                    else f"{where}: no such file; add it or set data.shots=0"
                )
            dev_made += [with_shots(e, shown, self.shots) for e in val.get(subject, shown)]
            test_made += [with_shots(e, shown, self.shots) for e in test[subject]]
        note = f"MMLU, {len(subjects)} of its {self.whole} subjects, {self.shots}-shot"
        return Parts((), tuple(dev_made), tuple(test_made), note=note)

    def _downloaded(self, split: str) -> Questions:
        """A split of the hub's data set, whose rows say their subject."""
        found: Questions = {}
        for row in self.hub_rows(split, "all"):
            subject = self.text(row, "subject")
            of_subject = found.setdefault(subject, [])
            cells = [self.text(row, "question"), *_options(row), _letter(row)]
            name = "val" if split == "validation" else split
            of_subject.append(_example(cells, row.where, subject, name, len(of_subject)))
        return found


def _there(root: Path) -> list[str]:
    """Subjects that have a test file."""
    folder = root / "test"
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder (data.root holds MMLU's dev/ and test/){place_looks_like(root)}"
        )
    suffix = "_test.csv"
    there = sorted(p.name.removesuffix(suffix) for p in folder.glob(f"*{suffix}"))
    if not there:
        raise DataError(
            f"{folder}: no file <subject>_test.csv in this folder{place_looks_like(folder)}"
        )
    return there


def _files(root: Path, subjects: Sequence[str], split: str) -> Questions:
    """Those of the subjects' files of a split that are there."""
    files = {subject: root / split / f"{subject}_{split}.csv" for subject in subjects}
    return {
        subject: read_csv(file, subject, split) for subject, file in files.items() if file.is_file()
    }


def _options(row: Row) -> list[str]:
    options = row.value.get("choices")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError(
            f"{row.where}: no list of choices, so no row of MMLU{looks_like(row.value)}"
        )
    return options


def _letter(row: Row) -> str:
    answer = row.value.get("answer")
    if isinstance(answer, int) and 0 <= answer < len(LETTERS):
        return LETTERS[answer]
    return str(answer)


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
