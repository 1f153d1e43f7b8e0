"""MMLU from its original CSV files, with training on other instruction data, as the paper does."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from elrea.data.examples import Example
from elrea.data.parts import Parts
from elrea.data.readers.layouts import looks_like, place_looks_like
from elrea.data.readers.tables import Row
from elrea.data.sampling import with_shots
from elrea.data.sources.benchmark import Benchmark
from elrea.errors import ConfigError, DataError

LETTERS = ("A", "B", "C", "D")
_HEADER = "The following are multiple choice questions (with answers) about {}."

_SHOWN = 5
"""Missing subjects that a message names."""

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
    """"all" 57, each of which then has to be there; or names of some as in the file names, [astronomy, virology]."""
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
            subjects = self._subjects(sorted(test), {*val, *solved})
        else:
            beside = _named(place, "dev") + _named(place, "val")
            subjects = self._subjects(_there(place), set(beside))
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

    def _subjects(self, there: Sequence[str], beside: Collection[str]) -> list[str]:
        """The subjects that are asked for.

        Args:
            there: those with test questions, sorted.
            beside: those with dev or val questions.

        Raises:
            DataError: one of them is not there, be it one of "all" that a folder lacks.
        """
        where = self.root or self.hub_name
        asked = [self.subjects] if isinstance(self.subjects, str) else list(self.subjects)
        missing = sorted(set(SUBJECTS) - set(there)) if asked == ["all"] else []
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise DataError(
                f"{where}: no test questions of {', '.join(missing[:_SHOWN])}{more}; all of MMLU is {self.whole}"
                " subjects: add what is missing, or take fewer by data.subjects=[...]"
            )
        wanted = beside if asked == ["all"] else set(asked).intersection(beside)
        if untested := sorted(set(wanted) - set(there)):
            raise DataError(
                f"{where}: {', '.join(untested)} in dev or val, and not in test; add its test questions or take it out"
            )
        return self.chosen(self.subjects, there, "subject")

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
    there = _named(root, "test")
    if not there:
        raise DataError(
            f"{folder}: no file <subject>_test.csv in this folder{place_looks_like(folder)}"
        )
    return there


def _named(root: Path, split: str) -> list[str]:
    """Subjects that have a file of a split, sorted."""
    suffix = f"_{split}.csv"
    return sorted(file.name.removesuffix(suffix) for file in (root / split).glob(f"*{suffix}"))


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


SUBJECTS = """
    abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security
    conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts
    high_school_biology high_school_chemistry high_school_computer_science high_school_european_history
    high_school_geography high_school_government_and_politics high_school_macroeconomics high_school_mathematics
    high_school_microeconomics high_school_physics high_school_psychology high_school_statistics
    high_school_us_history high_school_world_history human_aging human_sexuality international_law jurisprudence
    logical_fallacies machine_learning management marketing medical_genetics miscellaneous moral_disputes
    moral_scenarios nutrition philosophy prehistory professional_accounting professional_law
    professional_medicine professional_psychology public_relations security_studies sociology us_foreign_policy
    virology world_religions
""".split()
"""All 57, sorted."""
