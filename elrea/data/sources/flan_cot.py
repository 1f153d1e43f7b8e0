"""Flan's chains of thought (Longpre et al., 2023): questions with a rationale and an answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from elrea.data.corpus import Splits
from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.readers.tables import Row, first_line, suffix_of
from elrea.data.sources.base import Source
from elrea.errors import ConfigError

COLUMNS = ("question", "answer", "rationale")


@dataclass
class FlanCot(Source):
    r"""TSV files without a header, <task>_train.tsv: question, answer, rationale; a line break is written as \n."""

    wording: str = "{rationale}\nThe answer is {answer}."
    """The form of the response; "{answer}" alone leaves the rationale out."""

    name: ClassVar[str] = "flan_cot"
    title: ClassVar[str] = "Flan's chains of thought"
    public: ClassVar[str] = ""
    holds: ClassVar[str] = "Flan's *_train.tsv"

    @classmethod
    def recognises(cls, place: Path) -> bool:
        """Whether a TSV's first line has three columns."""
        return suffix_of(place) == ".tsv" and first_line(place).count("\t") == 2

    def read(self) -> Splits:
        """Read all files as train.

        Raises:
            DataError: a problem in the files, with file and line.
            ConfigError: `wording` is without {answer}, or has other placeholders than {rationale} and {answer}.
        """
        if "{answer}" not in self.wording or "{" in self._response("", ""):
            raise ConfigError(
                f"data.wording={self.wording!r} must have {{answer}}, and may have {{rationale}}"
            )
        if self.place() is None:
            raise ConfigError("data=flan_cot is not on the hub in this layout: set data.root")
        drops = Drops()
        examples = []
        counts: dict[str, int] = {}
        for row in self.file_rows((".tsv",), COLUMNS, drops):
            task = row.file.removesuffix("_train")
            if "" in (row.value["question"].strip(), row.value["answer"].strip()):
                drops.add(self.name, "dropped from train", "empty question or answer", row.where)
                continue
            counts[task] = index = counts.get(task, -1) + 1
            examples.append(self._example(row, task, index))
        return Splits(tuple(examples), drops=drops, note="Flan's chains of thought")

    def _example(self, row: Row, task: str, index: int) -> Example:
        question, answer, rationale = (
            self.text(row, name).replace("\\n", "\n").strip() if row.value[name].strip() else ""
            for name in COLUMNS
        )
        return Example(
            id=f"flan_cot/{task}/{index}",
            instruction=question,
            response=self._response(rationale, answer).strip(),
            source=self.name,
            category=task,
        )

    def _response(self, rationale: str, answer: str) -> str:
        # str.format cannot be used: a rationale may contain braces. \0 keeps an "{answer}" in it from being replaced.
        text = self.wording.replace("{answer}", "\0").replace("{rationale}", rationale)
        return text.replace("\0", answer)
