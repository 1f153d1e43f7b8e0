"""BIG-Bench Hard (Suzgun et al., 2022) from its original files or the hub, with training on other data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from elrea.data.corpus import Splits
from elrea.data.examples import Example
from elrea.data.readers import hub
from elrea.data.readers.layouts import looks_like, place_looks_like
from elrea.data.readers.tables import Row, rows_of
from elrea.data.sampling import with_shots
from elrea.data.sources.benchmark import Benchmark
from elrea.errors import ConfigError, DataError


@dataclass
class Bbh(Benchmark):
    """Test questions of up to 27 tasks, each after worked examples of its task; other files as train.

    Reads <task>.json from root/bbh/ or root/, and <task>.txt from cot-prompts/ in the same folder or in its parent.
    """

    tasks: str | list[str] = "all"
    """"all" tasks that exist, or some names as in the file names, [navigate, snarks], each of which must exist."""
    shots: int = 3
    """Worked examples before each question, 0 to 3, from the task's prompt file. Those that do not fit into
    `backbone.max_length` are dropped."""
    chain_of_thought: bool = True
    """Whether worked examples show their steps and the question asks for steps; if not, they show the answer only."""
    prompts: str | None = None
    """Folder of the prompt files <task>.txt if it is not cot-prompts/ in or beside `root`; the hub has none."""

    name: ClassVar[str] = "bbh"
    title: ClassVar[str] = "BIG-Bench Hard"
    public: ClassVar[str] = "SaylorTwift/bbh"
    holds: ClassVar[str] = "BIG-Bench Hard's bbh/ and cot-prompts/"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("examples",), ("input", "target"))
    whole: ClassVar[int] = 27

    @classmethod
    def recognises(cls, place: Path) -> bool:
        """Whether a folder has cot-prompts/."""
        return (place / "cot-prompts").is_dir()

    def questions(self) -> Splits:
        """All questions of the tasks, with worked examples.

        Raises:
            DataError: a missing task or prompt file, or a problem in the files, with file and entry.
            ConfigError: the number of shots is out of range.
        """
        if not 0 <= self.shots <= 3:
            raise ConfigError(
                f"data.shots={self.shots} must be 0 to 3: a prompt file has 3 worked examples"
            )
        if self.place() is None and self.shots and not self.prompts:
            # Checked before anything is downloaded, and also for plan=true: the run could not start.
            raise DataError(
                f"data.hub={self.hub_name} has no worked examples: set data.prompts=<folder with"
                " cot-prompts/*.txt> or data.shots=0"
            )
        tasks = self.select(self.tasks, self._available(), "task")
        test = tuple(example for task in tasks for example in self._questions(task))
        kind = f"{self.shots}-shot" + ("" if self.chain_of_thought else " without steps")
        return Splits(
            test=test, note=f"{self.title}, {len(tasks)} of its {self.whole} tasks, {kind}"
        )

    def _folder(self) -> Path | None:
        place = self.place()
        if place is None:
            return None
        return place / "bbh" if (place / "bbh").is_dir() else place

    def _available(self) -> list[str]:
        """Names of the tasks that exist, sorted."""
        folder = self._folder()
        if folder is None:
            return list(hub.configs(self.hub_name, holds=self.holds, revision=self.revision))
        tasks = sorted(file.stem for file in folder.glob("*.json"))
        if not tasks:
            raise DataError(
                f"{folder}: no <task>.json of BIG-Bench Hard in here; data.root must have {self.holds}"
                f"{place_looks_like(folder)}"
            )
        return tasks

    def _rows(self, task: str) -> Iterator[Row]:
        """Rows of input and target of one task."""
        folder = self._folder()
        if folder is None:
            yield from self.hub_rows("test", task)
            return
        for whole in rows_of(folder / f"{task}.json"):
            entries = whole.value.get("examples")
            if not isinstance(entries, list):
                if {"input", "target"} <= set(whole.value):
                    raise DataError(
                        f"{whole.where}: a row of BIG-Bench Hard outside a task: write all rows as"
                        ' {"examples": [...]}'
                    )
                raise DataError(
                    f"{whole.where}: no list of examples, so not a task of BIG-Bench Hard{looks_like(whole.value)}"
                )
            for number, entry in enumerate(entries, start=1):
                where = f"{whole.where}, entry {number}"
                if not isinstance(entry, dict):
                    raise DataError(f"{where}: not a JSON object")
                yield Row(entry, where, task)

    def _questions(self, task: str) -> Iterator[Example]:
        rows = list(self._rows(task))  # read first: their error recognises another benchmark's file
        prompt = self._prompt(task)
        ending = STEPS if self.chain_of_thought else ""
        solved = [
            Example(
                f"bbh/shot/{task}/{i}", _worded(q, ending), steps if ending else answer, self.name
            )
            for i, (q, steps, answer) in enumerate(prompt.solved)
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
        """The task's prompt file; an empty prompt if there is no file and no shots are needed."""
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
                    f"{file}: {len(prompt.solved)} worked examples are fewer than data.shots={self.shots}; lower it"
                )
            return prompt
        if self.shots:
            raise DataError(f"{files[0]}: no such file; add it, or set data.shots=0")
        return Prompt("", ())


def _worded(question: str, ending: str) -> str:
    return f"Q: {question}\nA: {ending}".rstrip()


STEPS = "Let's think step by step."
"""The words that ask for steps. Every answer in the prompt files begins with them."""

_ANSWER = re.compile(r"\bthe answer is:?\s*(.+?)\.?\s*$", re.IGNORECASE | re.DOTALL)


class Prompt(NamedTuple):
    """The content of one prompt file."""

    header: str
    """The description of the task."""
    solved: tuple[tuple[str, str, str], ...]
    """The worked examples: question, steps (without `STEPS`, with the answer at the end), and the answer only."""


def read_prompt(file: Path) -> Prompt:
    """Read one prompt file.

    Raises:
        DataError: the file cannot be read, has no worked example, or one of them has no answer.
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
        question, separator, text = block.partition("\nA:")
        answer = _ANSWER.search(text)
        if not separator or not question.strip() or not answer:
            raise DataError(
                f'{file}: worked example {number} must have "Q:", "A:", and "the answer is" at its end'
            )
        steps = text.strip().removeprefix(STEPS).strip()
        solved.append((question.strip(), steps, answer[1].strip()))
    if not solved:
        raise DataError(f'{file}: no worked example ("Q:" and "A:") in here')
    return Prompt(header.strip(), tuple(solved))
