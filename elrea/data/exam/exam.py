"""The built-in exam: multiple choice as in MMLU, generated from a seed, by boards with conflicting conventions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from elrea.data.corpus import Corpus, Splits
from elrea.data.exam.boards import BOARDS, FORMS, LETTERS, reading
from elrea.data.exam.items import Item, make_item, split_of
from elrea.data.exam.subjects import HARD, SUBJECTS
from elrea.data.examples import Example
from elrea.data.overlap.held_out import resolve_overlap
from elrea.data.sampling import stratified, with_shots
from elrea.errors import ConfigError, did_you_mean

NOTE = "built-in exam, not MMLU"
NOTES = {"standard": NOTE, "blended": "built-in exam, blended form, not MMLU"}
"""What a reader of the results must know, by form."""

_TRIES = 20_000
"""Number of draws after which a subject is considered to have no more questions."""

_CACHE: dict[str, Corpus] = {}
"""The last exam that was generated, by its settings."""


@dataclass
class Exam:
    """Multiple choice in up to 23 subjects; each question is set by one of up to eight boards.

    Boards differ in the form of their papers and in the conventions that decide their answers. Train, dev and test are
    disjoint by question and option set. Every board asks every subject equally often.
    """

    boards: int = 8
    """Number of boards, 1 to 8. A board is the `source` of its examples."""
    conflict: float = 1.0
    """Share of the conventions on which boards may differ: 0 is none, 1 is all."""
    subjects: str | list[str] = "mastered"
    """"mastered": the 17 that the built-in backbone can answer; "all": 23; or a list of names."""
    train_per_board: int | list[int] = 1200
    """Number of training questions of each board; or a list, one number for each board. A board with 0 is in the test
    and not in the training."""
    dev_per_board: int = 60
    """Number of dev questions of each board: for shots and for choosing settings."""
    test_per_board: int = 300
    """Number of test questions of each board."""
    shots: int = 0
    """Solved dev questions of the same board before each test question."""
    limit_train: int | None = None
    """Maximum number of training questions, drawn by `seed` from each board in proportion; None takes all."""
    limit_test: int | None = None
    """As `limit_train`, for test."""
    seed: int = 0
    """Seed of the questions. It is not the run's seed: runs of several seeds are scored on the same questions."""
    train_seed: int | None = None
    """Seed of the training questions alone, so that runs on several draws are scored on the same test; None: `seed`."""
    form: Literal["standard", "blended"] = "standard"
    """How boards print their questions. `standard`: in words of their own, by which counts of words find some boards.
    `blended`: all in the same words, in an order of their own, so that counts of words find none."""
    allow_overlap: bool = False
    """Skip the check for overlap, as in every source. The exam never has overlap."""

    def load(self) -> Corpus:
        """Generates the exam. Jobs of a sweep in one process share an exam with the same settings.

        Raises:
            ConfigError: a number out of range, an unknown subject, or more questions than a subject has.
        """
        if repr(self) not in _CACHE:
            corpus = self._make()
            _CACHE.clear()
            _CACHE[repr(self)] = corpus
        return _CACHE[repr(self)]

    def _make(self) -> Corpus:
        if not 1 <= self.boards <= len(BOARDS):
            raise ConfigError(f"data.boards={self.boards} must be 1 to {len(BOARDS)}")
        if not 0 <= self.conflict <= 1:
            raise ConfigError(f"data.conflict={self.conflict} must be 0 to 1")
        if self.shots < 0 or self.shots > self.dev_per_board:
            raise ConfigError(
                f"data.shots={self.shots} must be 0 to data.dev_per_board={self.dev_per_board}"
            )
        splits = {name: tuple(self._split(name)) for name in ("train", "dev", "test")}
        dev = splits["dev"]
        test = stratified(splits["test"], self.limit_test, self.seed, "test")
        if self.shots:
            pools = {board: [e for e in dev if e.source == board] for board in BOARDS}
            test = tuple(with_shots(example, pools[example.source], self.shots) for example in test)
        train = stratified(splits["train"], self.limit_train, self._seed("train"), "train")
        corpus = Corpus("exam", train, dev, test, NOTES[self.form])
        corpus.check()
        if not self.allow_overlap:
            resolve_overlap(Splits(train, dev, test), "refuse", corpus.name)
        return corpus

    def _sizes(self, split: str) -> list[int]:
        """The number of questions of each board in a split."""
        key = f"{split}_per_board"
        given = getattr(self, key)
        sizes = list(given) if isinstance(given, list) else [given] * self.boards
        if len(sizes) != self.boards:
            raise ConfigError(
                f"data.{key} has {len(sizes)} numbers for data.boards={self.boards}; give one number for each, or one "
                "for all"
            )
        if min(sizes) < 0:
            raise ConfigError(f"data.{key}={given} must be 0 or more")
        return sizes

    def _split(self, split: str) -> Iterator[Example]:
        """One split, board after board. A board asks no question with the same options twice."""
        names = self._subjects()
        for number, (board, per_board) in enumerate(zip(BOARDS, self._sizes(split), strict=False)):
            rng = Random(f"exam/{self._seed(split)}/{split}/{board}")
            used: set[str] = set()
            letters = [letter for letter in range(4) for _ in range(-(-per_board // 4))]
            rng.shuffle(letters)
            for i in range(per_board):
                subject = names[(i + number) % len(names)]
                item = self._new_item(subject, split, rng, used)
                yield self._example(
                    item, board, number, letters[i], rng, f"exam/{split}/{board}/{i:05d}"
                )

    def _seed(self, split: str) -> int:
        if split == "train" and self.train_seed is not None:
            return self.train_seed
        return self.seed

    def _subjects(self) -> list[str]:
        if self.subjects == "all":
            return list(SUBJECTS)
        if self.subjects == "mastered":
            return [name for name in SUBJECTS if name not in HARD]
        wanted = [self.subjects] if isinstance(self.subjects, str) else self.subjects
        for name in wanted:
            if name not in SUBJECTS:
                near = did_you_mean(name, SUBJECTS)
                raise ConfigError(f"data.subjects: the exam has no subject {name!r}{near}")
        if not wanted:
            raise ConfigError("data.subjects is empty; name subjects or set it to all")
        return wanted

    def _new_item(self, subject: str, split: str, rng: Random, used: set[str]) -> Item:
        for _ in range(_TRIES):
            item = make_item(subject, rng)
            if split_of(item) == split and item.identity not in used:
                used.add(item.identity)
                return item
        raise ConfigError(f"data.{split}_per_board: {subject} has no more questions; ask for fewer")

    def _example(
        self, item: Item, board: str, number: int, letter: int, rng: Random, name: str
    ) -> Example:
        which = reading(number, item.convention, self.conflict) if item.convention else 0
        right = item.answers[which]
        options = [option for option in item.options if option != right]
        rng.shuffle(options)
        options.insert(letter, right)
        return Example(
            id=name,
            instruction=FORMS[self.form][board].render(item.stem, options),
            response=LETTERS[letter],
            source=board,
            category=item.subject,
            choices=LETTERS,
        )
