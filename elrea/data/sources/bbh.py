"""BIG-Bench Hard (Suzgun et al., 2022) from its original files, with training on other instruction data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from elrea.data.examples import Example
from elrea.data.parts import Parts
from elrea.data.readers import hub
from elrea.data.readers.layouts import looks_like, place_looks_like
from elrea.data.readers.tables import Row, rows_of
from elrea.data.sampling import with_shots
from elrea.data.sources.benchmark import Benchmark
from elrea.errors import ConfigError, DataError


@dataclass
class Bbh(Benchmark):
    """Test questions of up to 27 tasks, each with its own worked examples before it; other files as train.

    Reads <task>.json from root/bbh/ or root/, and <task>.txt from cot-prompts/ there or beside it.
    """

    tasks: str | list[str] = "all"
    """"all" that are there, or some names as in the file names, [navigate, snarks], each of which has to be."""
    shots: int = 3
    """Worked examples before each question, 0 to 3, from the task's prompt; those that do not fit are dropped."""
    chain_of_thought: bool = True
    """Whether worked examples show their steps and the question asks for them; the answer alone otherwise."""
    prompts: str | None = None
    """Folder of the prompts <task>.txt, where it is not cot-prompts/ in or beside `root`; the hub has none."""
    name: ClassVar[str] = "bbh"
    title: ClassVar[str] = "BIG-Bench Hard"
    public: ClassVar[str] = "SaylorTwift/bbh"
    holds: ClassVar[str] = "BIG-Bench Hard's bbh/ and cot-prompts/"
    whole: ClassVar[int] = 27

    def questions(self) -> Parts:
        """All questions of the tasks, with worked examples.

        Raises:
            DataError: a task or its prompt is not there, or anything is wrong with the files, with file and entry.
            ConfigError: the number of shots is out of range.
        """
        if not 0 <= self.shots <= 3:
            raise ConfigError(f"data.shots={self.shots} must be 0 to 3: a prompt has 3 examples")
        if self.place() is None and self.shots and not self.prompts:
            # Before the hub is asked, and in a plan too: such a run could not begin.
            raise DataError(
                f"data.hub={self.hub_name} has no worked examples: say data.prompts=<folder of"
                " cot-prompts/*.txt> or data.shots=0"
            )
        asked = self.chosen(self.tasks, self._there(), "task")
        test = tuple(example for task in asked for example in self._questions(task))
        kind = f"{self.shots}-shot" + ("" if self.chain_of_thought else " without steps")
        return Parts(
            test=test, note=f"{self.title}, {len(asked)} of its {self.whole} tasks, {kind}"
        )

    def _folder(self) -> Path | None:
        place = self.place()
        if place is None:
            return None
        return place / "bbh" if (place / "bbh").is_dir() else place

    def _there(self) -> list[str]:
        """Names of the tasks that are there."""
        folder = self._folder()
        if folder is None:
            return list(hub.configs(self.hub_name, holds=self.holds, revision=self.revision))
        there = sorted(file.stem for file in folder.glob("*.json"))
        if not there:
            raise DataError(
                f"{folder}: no <task>.json of BIG-Bench Hard in here; data.root holds {self.holds}"
                f"{place_looks_like(folder)}"
            )
        return there

    def _rows(self, task: str) -> Iterator[Row]:
        """Rows of input and target."""
        folder = self._folder()
        if folder is None:
            yield from self.hub_rows("test", task)
            return
        for whole in rows_of(folder / f"{task}.json"):
            entries = whole.value.get("examples")
            if not isinstance(entries, list):
                if {"input", "target"} <= set(whole.value):
                    raise DataError(
                        f'{whole.where}: a row of BIG-Bench Hard, but no task: write the rows as {{"examples": [...]}}'
                    )
                raise DataError(
                    f"{whole.where}: no list of examples, so no task of BIG-Bench Hard{looks_like(whole.value)}"
                )
            for number, entry in enumerate(entries, start=1):
                where = f"{whole.where}, entry {number}"
                if not isinstance(entry, dict):
                    raise DataError(f"{where}: not a JSON object")
                yield Row(entry, where, task)

    def _questions(self, task: str) -> Iterator[Example]:
        rows = list(self._rows(task))  # first, for they tell another benchmark's file
        prompt = self._prompt(task)
        ending = STEPS if self.chain_of_thought else ""
        solved = [
            Example(
                f"bbh/shot/{task}/{i}", _worded(q, ending), way if ending else answer, self.name
            )
            for i, (q, way, answer) in enumerate(prompt.solved)
        ]
        for index, row in enumerate(rows):
            example = Example(
                id=f"bbh/test/{task}/{index}",
                instruction=_worded(self.text(row, "input").strip(), ending),
                response=self.text(row, "target").strip(),
                source=self.name,
                category=task,
                header=prompt.header,
                judge="answer",
            )
            yield with_shots(example, solved, self.shots)

    def _prompt(self, task: str) -> Prompt:
        """What the task is and its worked examples; without shots what there is of it."""
        folder = self._folder()
        if self.prompts:
            folders = [Path(self.prompts)]
        elif folder is not None:
            folders = [folder / "cot-prompts", folder.parent / "cot-prompts"]
        else:
            return Prompt("", ())
        files = [folder / f"{task}.txt" for folder in folders]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            prompt = read_prompt(file)
            if len(prompt.solved) < self.shots:
                raise DataError(
                    f"{file}: {len(prompt.solved)} worked examples, and data.shots={self.shots} asks for more"
                )
            return prompt
        if self.shots:
            raise DataError(f"{files[0]}: no such file; add it, or set data.shots=0")
        return Prompt("", ())


def _worded(question: str, ending: str) -> str:
    return f"Q: {question}\nA: {ending}".rstrip()


STEPS = "Let's think step by step."
"""What asks for steps: every answer in the files opens with it."""

_ANSWER = re.compile(r"\bthe answer is:?\s*(.+?)\.?\s*$", re.IGNORECASE | re.DOTALL)


class Prompt(NamedTuple):
    """One task's file."""

    header: str
    """What the task is."""
    solved: tuple[tuple[str, str, str], ...]
    """Question, steps (without their opening, with the answer at their end), and the answer alone."""


def read_prompt(file: Path) -> Prompt:
    """Read one file.

    Raises:
        DataError: it cannot be read, holds no worked example, or one of them has no answer.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{file}: cannot be read ({reason})") from error
    body = re.split(r"^-{3,}[ \t]*\n", text, maxsplit=1, flags=re.MULTILINE)[-1]
    header, *blocks = re.split(r"^Q:[ \t]*", body, flags=re.MULTILINE)
    solved = []
    for number, block in enumerate(blocks, start=1):
        question, mark, way = block.partition("\nA:")
        answer = _ANSWER.search(way)
        if not mark or not question.strip() or not answer:
            raise DataError(
                f'{file}: worked example {number} wants "Q:", "A:", and "the answer is" at its end'
            )
        steps = way.strip().removeprefix(STEPS).strip()
        solved.append((question.strip(), steps, answer[1].strip()))
    if not solved:
        raise DataError(f'{file}: no worked example ("Q:" and "A:") in here')
    return Prompt(header.strip(), tuple(solved))
