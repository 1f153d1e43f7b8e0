"""Dolly (Databricks, 2023): 15,011 instructions with responses, written by the company's employees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from elrea.data.corpus import Splits
from elrea.data.examples import Example
from elrea.data.sources.base import Source


@dataclass
class Dolly(Source):
    """JSON lines of instruction, context, response and category. The context is put after the instruction."""

    name: ClassVar[str] = "dolly"
    title: ClassVar[str] = "Dolly"
    public: ClassVar[str] = "databricks/databricks-dolly-15k"
    holds: ClassVar[str] = "databricks-dolly-15k.jsonl"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("instruction", "context", "response", "category"),
    )

    def read(self) -> Splits:
        """Read the file as train.

        Raises:
            DataError: a problem in the file, with the line.
        """
        rows = self.file_rows() if self.place() else self.hub_rows("train")
        examples = []
        for index, row in enumerate(rows):
            instruction, response = self.text(row, "instruction"), self.text(row, "response")
            context = self.optional(row, "context").strip()
            examples.append(
                Example(
                    id=f"dolly/{index}",
                    instruction="\n\n".join(filter(None, (instruction.strip(), context))),
                    response=response.strip(),
                    source=self.name,
                    category=self.optional(row, "category"),
                )
            )
        return Splits(tuple(examples), note="Dolly")
