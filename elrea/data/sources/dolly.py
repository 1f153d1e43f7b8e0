"""Dolly (Databricks, 2023): 15,011 instructions that employees wrote and answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from elrea.data.examples import Example
from elrea.data.parts import Parts
from elrea.data.sources.base import Source


@dataclass
class Dolly(Source):
    """JSON lines of instruction, context, response and category. A context follows the instruction."""

    name: ClassVar[str] = "dolly"
    title: ClassVar[str] = "Dolly"
    public: ClassVar[str] = "databricks/databricks-dolly-15k"
    holds: ClassVar[str] = "databricks-dolly-15k.jsonl"

    def parts(self) -> Parts:
        """Read the file; all of it is train until a test is held out.

        Raises:
            DataError: anything wrong with it, with the line.
        """
        rows = self.file_rows() if self.place() else self.hub_rows("train")
        made = []
        for index, row in enumerate(rows):
            asked, response = self.text(row, "instruction"), self.text(row, "response")
            context = self.optional(row, "context").strip()
            made.append(
                Example(
                    id=f"dolly/{index}",
                    instruction=f"{asked.strip()}\n\n{context}" if context else asked.strip(),
                    response=response.strip(),
                    source=self.name,
                    category=self.optional(row, "category"),
                )
            )
        return Parts(tuple(made), note="Dolly")
