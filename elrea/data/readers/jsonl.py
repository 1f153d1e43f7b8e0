"""A user's own instruction data: JSON lines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from elrea.data.corpus import Corpus
from elrea.data.examples import Example
from elrea.data.overlap.held_out import Overlap, resolve_overlap
from elrea.data.parts import Parts
from elrea.data.readers.rows import RowReader
from elrea.data.readers.tables import parse_row
from elrea.data.sampling import split, subset, with_shots
from elrea.data.sources.base import Limited, corpus_of
from elrea.errors import ConfigError, DataError


@dataclass
class Jsonl(Limited):
    """Instruction files, one JSON object a line, as train and test.

    Formats, told apart line by line: instruction and response; Alpaca's instruction, input and
    output; prompt and completion; chat messages. With choices and answer a line is scored as
    multiple choice, else by exact match.
    """

    train: str | list[str] | None = None
    """Files, or folders whose *.jsonl files are all read. Required."""
    test: str | list[str] | None = None
    """As `train`. None: `test_share` of train's questions are held out."""
    dev: str | list[str] | None = None
    """As `train`: for choosing settings, and to take shots from. None: there is none."""
    fields: dict[str, str | None] = field(default_factory=dict)
    """Other names, role -> name in the file: {instruction: question, response: solution}. Roles:
    instruction, input, response, messages, choices, answer, source, category, id."""
    ignore: list[str] = field(default_factory=list)
    """Fields to pass over; ["*"] for all that play no role. A field that is neither known nor
    named here is refused: it may hold half of the question."""
    test_share: float = 0.1
    """Share of train's questions that become test where no test file is given: a tenth, as is
    usual."""
    overlap: Overlap = "refuse"
    """Where a test question stands in train or dev, or dev's in train: "refuse", or "drop" it there, counted."""
    shots: int = 0
    """Solved examples before each test question, drawn once from dev, or from train without it.
    Instruction data is used without."""

    def load(self) -> Corpus:
        """Read, split and check.

        Raises:
            DataError: anything wrong with the files, with file and line.
            ConfigError: a limit, a share or a number of shots out of range.
        """
        if self.shots < 0:
            raise ConfigError(f"data.shots={self.shots} must be 0 or more")
        parts = self.ready(self.parts())
        if not self.allow_overlap:
            parts = resolve_overlap(parts, self.overlap, "data=jsonl")
        parts = self.limited(parts)
        train, dev, test = parts.train, parts.dev, parts.test
        if self.shots:
            solved = [example for example in dev or train if not example.history]
            # One to spare: a question is never its own shot.
            pool = subset(solved, self.shots + 1, self.seed, "shots")
            if len(pool) < self.shots:
                of = "dev" if dev else "train"
                raise ConfigError(
                    f"data.shots={self.shots}: {of} has {len(pool)} examples without earlier turns to show"
                )
            test = tuple(with_shots(example, pool, self.shots) for example in test)
        several = len({example.source for example in test}) > 1
        return corpus_of("jsonl", replace(parts, test=test), "source" if several else "category")

    def parts(self) -> Parts:
        """Read all files.

        Raises:
            DataError: anything wrong with them, with file and line.
        """
        if not self.train:
            raise DataError(
                "data=jsonl needs data.train: one or more .jsonl files or folders of them, e.g."
                " data.train=mine.jsonl"
            )
        reader = RowReader(self.fields, self.ignore)
        settings = {"data.train": self.train, "data.dev": self.dev, "data.test": self.test}
        train, dev, test = read_files(settings, reader).values()
        return Parts(train, dev, test, note="own instruction data")

    def ready(self, parts: Parts) -> Parts:
        """With a test held out of train where no file is one."""
        if parts.test:
            return parts
        train, test = split(parts.train, self.test_share, self.seed)
        held = f", {self.test_share:.0%} of the questions held out as test"
        return replace(parts, train=train, test=test, note=parts.note + held)

    def placed(self) -> bool:
        """Whether it is said where the data is."""
        return bool(self.train)

    def at(self, folder: Path) -> Self:
        """The same, read from a folder."""
        return replace(self, train=str(folder))

    def on_hub(self) -> Self:
        """The same: a user's own files are nowhere else."""
        return self


def read_files(
    settings: Mapping[str, str | Sequence[str] | None], reader: RowReader
) -> dict[str, tuple[Example, ...]]:
    """Read the instruction files that some settings name.

    Args:
        settings: the setting ("data.train") -> its files, or folders whose *.jsonl files are all
            read, sorted by name; None for none.
        reader: turns rows into examples.

    Returns:
        Each setting's examples, file after file. Ids are "<folder>/<file>:<line or id>".

    Raises:
        DataError: no such file or folder, a folder without *.jsonl, an empty file, one given
            twice, broken JSON, not UTF-8, a duplicated id, or a bad row; with file and line.
    """
    found = {
        key: _files([paths] if isinstance(paths, str) else paths or (), key)
        for key, paths in settings.items()
    }
    given: dict[str, str] = {}
    for key, files in found.items():
        for file in files:
            if (path := os.path.realpath(file)) in given:
                raise DataError(f"{file}: given twice ({given[path]} and {key}); name it once")
            given[path] = key
    labels = _labels([file for files in found.values() for file in files])
    return {
        key: tuple(example for file in files for example in _read(file, labels[file], reader))
        for key, files in found.items()
    }


def _files(paths: Sequence[str], key: str) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(f for f in path.glob("*.jsonl") if not f.name.startswith("."))
            if not inside:
                raise DataError(f"{path}: no *.jsonl file in this folder ({key})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder ({key})")
    return files


def _labels(files: Sequence[Path]) -> dict[Path, str]:
    """Name each file by its folder and name, "t0/ag_news.jsonl", and by more folders where two of
    them would share a name."""
    parts = {file: Path(os.path.abspath(file)).parts for file in files}
    depth = 2
    while len({path[-depth:] for path in parts.values()}) < len(parts):
        depth += 1
    return {file: "/".join(path[-depth:]) for file, path in parts.items()}


def _read(file: Path, label: str, reader: RowReader) -> list[Example]:
    examples: list[Example] = []
    lines: dict[str, int] = {}
    try:
        # Binary, cut at \n alone: text mode would also cut at the likes of U+2028 inside strings.
        with file.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                row = parse_row(raw, f"{file}:{line}")
                if row is None:
                    continue
                example = reader.read(row, f"{file}:{line}", label, line)
                if example.id in lines:
                    raise DataError(
                        f"{file}:{line}: the id {example.id.rpartition(':')[2]!r} is line"
                        f" {lines[example.id]}'s already; make it unique"
                    )
                lines[example.id] = line
                examples.append(example)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    if not examples:
        raise DataError(f"{file}: the file is empty; remove it or fill it")
    return examples
