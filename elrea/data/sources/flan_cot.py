"""Flan's chains of thought (Longpre et al., 2023): questions whose answers come with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from elrea.data.examples import Example
from elrea.data.overlap.dropped import Drops
from elrea.data.parts import Parts
from elrea.data.readers.tables import Row
from elrea.data.sources.base import Source
from elrea.errors import ConfigError

COLUMNS = ("question", "answer", "rationale")


@dataclass
class FlanCot(Source):
    r"""TSV files without a header, <task>_train.tsv: question, answer, rationale; a new line is written as \n."""

    wording: str = "{rationale}\nThe answer is {answer}."
    """The response; "{answer}" alone leaves the reason out."""

    name: ClassVar[str] = "flan_cot"
    title: ClassVar[str] = "Flan's chains of thought"
    public: ClassVar[str] = ""
    holds: ClassVar[str] = "Flan's *_train.tsv"

    def parts(self) -> Parts:
        """Read all files; all of it is train until a test is held out.

        Raises:
            DataError: anything wrong with them, with file and line.
            ConfigError: `wording` leaves the answer out, or has other places than rationale and answer.
        """
        if "{answer}" not in self.wording or "{" in self._worded("", ""):
            raise ConfigError(
                f"data.wording={self.wording!r} must hold {{answer}}, and may hold {{rationale}}"
            )
        if self.place() is None:
            raise ConfigError("data=flan_cot is not on the hub in this layout: give data.root")
        drops = Drops()
        made = []
        counts: dict[str, int] = {}
        for row in self.file_rows((".tsv",), COLUMNS):
            task = row.file.removesuffix("_train")
            if "" in (row.value["question"].strip(), row.value["answer"].strip()):
                drops.add(self.name, "dropped from train", "empty question or answer", row.where)
                continue
            counts[task] = index = counts.get(task, -1) + 1
            made.append(self._example(row, task, index))
        return Parts(tuple(made), drops=drops, note="Flan's chains of thought")

    def _example(self, row: Row, task: str, index: int) -> Example:
        question, answer, rationale = (
            self.text(row, name).replace("\\n", "\n").strip() if row.value[name].strip() else ""
            for name in COLUMNS
        )
        return Example(
            id=f"flan_cot/{task}/{index}",
            instruction=question,
            response=self._worded(rationale, answer).strip(),
            source=self.name,
            category=task,
        )

    def _worded(self, rationale: str, answer: str) -> str:
        # Not str.format: a rationale may hold braces, and so may nothing else.
        said = self.wording.replace("{answer}", "\0").replace("{rationale}", rationale)
        return said.replace("\0", answer)
