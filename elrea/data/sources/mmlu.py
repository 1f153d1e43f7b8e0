"""MMLU from its original CSV files or the hub, with training on other instruction data as in the paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from elrea.data.corpus import Splits
from elrea.data.examples import Example, listing
from elrea.data.readers.layouts import looks_like, place_looks_like
from elrea.data.readers.tables import Row, first_line, suffix_of
from elrea.data.sampling import with_shots
from elrea.data.sources.benchmark import Benchmark
from elrea.errors import ConfigError, DataError

LETTERS = ("A", "B", "C", "D")
_HEADER = "The following are multiple choice questions (with answers) about {}."

_SHOWN = 5
"""Number of missing subjects that a message lists."""

Questions = dict[str, list[Example]]
"""Subject -> its questions."""


@dataclass
class Mmlu(Benchmark):
    """MMLU (Hendrycks et al., 2021) as test, other instruction files as train.

    Reads root/test/<subject>_test.csv, root/dev/<subject>_dev.csv (the shots) and, if it exists,
    root/val/<subject>_val.csv, which becomes the dev split. Without it the dev files are the dev split, each question
    with the others of its subject as shots. The files have no header; a row is question, four options, letter.
    """

    subjects: str | list[str] = "all"
    """"all" 57, each of which must exist; or some names as in the file names, [astronomy, virology]."""
    shots: int = 5
    """Solved questions of the same subject before each test question; MMLU is usually scored with 5."""

    name: ClassVar[str] = "mmlu"
    title: ClassVar[str] = "MMLU"
    public: ClassVar[str] = "cais/mmlu"
    holds: ClassVar[str] = "MMLU's dev/ and test/"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("question", "subject", "choices", "answer"),)
    whole: ClassVar[int] = 57

    @classmethod
    def recognises(cls, place: Path) -> bool:
        """Whether a folder, or the folder around it, has test/*_test.csv; or a CSV's first line ends in a letter."""
        if place.is_file():
            cells = next(csv.reader([first_line(place)]), []) if suffix_of(place) == ".csv" else []
            return len(cells) == len(LETTERS) + 2 and cells[-1].strip() in LETTERS
        return any(any((path / "test").glob("*_test.csv")) for path in (place, place.parent))

    def questions(self) -> Splits:
        """Dev and test questions with their shots, subject by subject.

        Raises:
            DataError: a missing subject, or a problem in the files, with file and line.
            ConfigError: the number of shots is out of range.
        """
        if self.shots < 0:
            raise ConfigError(f"data.shots={self.shots} must be 0 or more")
        place = self.place()
        if place is None:
            test, val, solved = (self._from_hub(split) for split in ("test", "validation", "dev"))
            subjects = self._subjects(sorted(test), {*val, *solved})
        else:
            with_dev = _subjects_with(place, "dev") + _subjects_with(place, "val")
            subjects = self._subjects(_tested_subjects(place), set(with_dev))
            test, val, solved = (
                _from_files(place, subjects, split) for split in ("test", "val", "dev")
            )
        dev_examples: list[Example] = []
        test_examples: list[Example] = []
        for subject in subjects:
            pool = solved.get(subject, [])
            if len(pool) < self.shots:
                where = (
                    place / "dev" / f"{subject}_dev.csv"
                    if place
                    else f"{self.hub_name} dev, {subject}"
                )
                raise DataError(
                    f"{where}: {len(pool)} rows are fewer than data.shots={self.shots}; add rows or lower it"
                    if pool
                    else f"{where}: no such file; add it or set data.shots=0"
                )
            dev_examples += [with_shots(e, pool, self.shots) for e in val.get(subject, pool)]
            test_examples += [with_shots(e, pool, self.shots) for e in test[subject]]
        note = f"MMLU, {len(subjects)} of its {self.whole} subjects, {self.shots}-shot"
        return Splits((), tuple(dev_examples), tuple(test_examples), note=note)

    def _subjects(self, tested: Sequence[str], with_dev: Collection[str]) -> list[str]:
        """The subjects to use.

        Args:
            tested: subjects with test questions, sorted.
            with_dev: subjects with dev or val questions.

        Raises:
            DataError: a subject has no test questions: one that is named, any of "all", or one with dev questions.
        """
        where = self.root or self.hub_name
        wanted = [self.subjects] if isinstance(self.subjects, str) else list(self.subjects)
        missing = sorted(set(SUBJECTS) - set(tested)) if wanted == ["all"] else []
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise DataError(
                f"{where}: no test questions of {', '.join(missing[:_SHOWN])}{more}; MMLU has {self.whole} subjects:"
                " add the missing files, or choose fewer subjects with data.subjects=[...]"
            )
        expected = with_dev if wanted == ["all"] else set(wanted).intersection(with_dev)
        if untested := sorted(set(expected) - set(tested)):
            raise DataError(
                f"{where}: {', '.join(untested)} in dev or val but not in test; add the test questions, or remove the"
                " dev and val files"
            )
        return self.select(self.subjects, tested, "subject")

    def _from_hub(self, split: str) -> Questions:
        """The questions of a split of the hub's data set, which has all subjects in one table."""
        questions: Questions = {}
        for row in self.hub_rows(split, "all"):
            subject = self.text(row, "subject")
            of_subject = questions.setdefault(subject, [])
            cells = [self.text(row, "question"), *_options(row), _letter(row)]
            name = "val" if split == "validation" else split
            of_subject.append(_example(cells, row.where, subject, name, len(of_subject)))
        return questions


def _tested_subjects(root: Path) -> list[str]:
    """Subjects that have a test file, sorted."""
    folder = root / "test"
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder (data.root must have MMLU's dev/ and test/){place_looks_like(root)}"
        )
    subjects = _subjects_with(root, "test")
    if not subjects:
        raise DataError(
            f"{folder}: no file <subject>_test.csv in this folder{place_looks_like(folder)}"
        )
    return subjects


def _subjects_with(root: Path, split: str) -> list[str]:
    """Subjects that have a file of a split, sorted."""
    suffix = f"_{split}.csv"
    return sorted(file.name.removesuffix(suffix) for file in (root / split).glob(f"*{suffix}"))


def _from_files(root: Path, subjects: Sequence[str], split: str) -> Questions:
    """The questions of a split, of the subjects that have a file of it."""
    files = {subject: root / split / f"{subject}_{split}.csv" for subject in subjects}
    return {
        subject: read_csv(file, subject, split) for subject, file in files.items() if file.is_file()
    }


def _options(row: Row) -> list[str]:
    options = row.value.get("choices")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError(
            f"{row.where}: no list of choices, so not a row of MMLU{looks_like(row.value)}"
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
        file: rows of question, options A to D and the answer's letter; a quoted question may span lines.
        subject: the subject as in the file's name.
        split: part of the ids, "mmlu/<split>/<subject>/<row, counted from 0>".

    Raises:
        DataError: no rows, text that is not UTF-8, broken quotes, not six columns, an empty question, or an answer
            that is not a letter from A to D; with file and line.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    try:
        text = raw.decode("utf-8").removeprefix(
            "\ufeff"
        )  # some original files have a byte order mark
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
            line = rows.line_num + 1  # first line of the next row
    except csv.Error as error:
        raise DataError(f"{file}:{line}: broken CSV ({error})") from error
    if not examples:
        raise DataError(f"{file}: the file is empty; remove it or fill it")
    return examples


def _example(row: list[str], where: str, subject: str, split: str, index: int) -> Example:
    if len(row) != len(LETTERS) + 2:
        raise DataError(f"{where}: {len(row)} columns instead of 6: question, A, B, C, D, answer")
    question, *options, letter = (cell.strip() for cell in row)
    if letter not in LETTERS:
        raise DataError(f"{where}: the answer {letter!r} is not one of A, B, C, D")
    if not question:
        raise DataError(f"{where}: the question is empty; fill it or remove the row")
    return Example(
        id=f"mmlu/{split}/{subject}/{index}",
        instruction=f"{question}\n{listing(options)}",
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
