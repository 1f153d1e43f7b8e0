"""An example: one instruction and its reference response."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from elrea.data.labels import own
from elrea.errors import DataError


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction and its reference response, (x_instr, x_resp) of D_ft.

    Raises:
        DataError: two choices are equal, the response is not one of the choices, or `options` or `turn_loss` does not
            fit.
    """

    id: str
    """Unique id in the corpus: "mmlu/test/astronomy/17", "t0/ag_news_classify.jsonl:12"."""
    instruction: str
    """The question in the source's words, without shots, earlier turns and header."""
    response: str
    """The reference response; for multiple choice one of `choices`."""
    source: str
    """Name of the source: a data set, a board of the built-in exam, or a file's name without its suffix."""
    category: str = ""
    """Subject or task; empty if the source has none."""
    choices: tuple[str, ...] = ()
    """The possible answers as the model writes them; empty for a free response."""
    shots: tuple[tuple[str, str], ...] = ()
    """Solved examples (instruction, response) before the instruction in the prompt."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns (role, text) of a chat; roles are system, user and assistant."""
    header: str = ""
    """First line of the prompt, such as MMLU's about the subject. Routing prompts include it."""
    judge: str = ""
    """Name of the judge of a generated response: "maths", "letter" and "answer" are modules of
    `elrea.evaluation.judges`; that of a plugin has its full name. Empty: "letter" if there are choices, else a
    comparison word for word."""
    options: tuple[str, ...] = field(default=(), repr=False)
    """The texts of `choices` where these are letters that stand for them (`elrea.data.options`); else empty."""
    turn_loss: tuple[bool | None, ...] = field(default=(), repr=False)
    """Of each turn of `history`, whether its words carry loss in training: True, with the response; False, never; None,
    as training.loss_on says of a prompt. Empty: None for all."""
    plain_text: bool = field(default=False, repr=False)
    """Plain text for language modelling: `instruction` is the text, all of whose tokens carry loss, and there is no
    response. No template and no shots are put round it."""

    def __post_init__(self) -> None:
        if len(set(self.choices)) < len(self.choices):
            raise DataError(f"{self.id}: two choices are equal: {list(self.choices)}")
        if self.choices and self.response not in self.choices:
            raise DataError(
                f"{self.id}: the answer {self.response!r} is not one of {list(self.choices)}"
            )
        if self.options and len(self.options) != len(self.choices):
            raise DataError(
                f"{self.id}: {len(self.options)} options for {len(self.choices)} choices"
            )
        if self.turn_loss and len(self.turn_loss) != len(self.history):
            raise DataError(
                f"{self.id}: turn_loss has {len(self.turn_loss)} entries for {len(self.history)} turns"
            )

    @property
    def answer(self) -> int | None:
        """Index of the response in `choices`; None for a free response."""
        return self.choices.index(self.response) if self.choices else None

    @property
    def stem(self) -> str:
        """The instruction without the listing of its options that `elrea.data.options` has put behind it."""
        if not self.options:
            return self.instruction
        labelled = sorted(
            zip(self.choices, self.options, strict=True), key=lambda pair: (len(pair[0]), pair[0])
        )
        return self.instruction.removesuffix(f"\n{listing([text for _, text in labelled])}")

    def named(self, choice: str) -> str:
        """A choice for a reader: "B. Paris" if it is a letter that stands for a text, else the choice itself."""
        if not self.options or choice not in self.choices:
            return choice
        text = self.options[self.choices.index(choice)]
        return text if own(self.options) else f"{choice}. {text}"

    @property
    def question(self) -> tuple[str, ...]:
        """The exact question: instruction, choices and earlier turns, whatever the white space and order of choices.

        Choices that are only the letters A, B, ... are left out: the instruction lists the options, or `options` has
        their texts. A comparison that also ignores layout and punctuation is `elrea.data.overlap.question_key`.
        """
        letters = tuple(string.ascii_uppercase[: len(self.choices)])
        choices = sorted(self.options or (() if self.choices == letters else self.choices))
        words = (self.stem, *choices, *(text for _, text in self.history))
        return tuple(" ".join(text.split()) for text in words)


def listing(options: Sequence[str]) -> str:
    """The lines of MMLU's prompts after the question: "A. ..." for each option, and "Answer:".

    Options that have labels of their own, as "A) ...", get no others.
    """
    if own(options):
        return "\n".join([*options, "Answer:"])
    lines = (f"{a}. {text}" for a, text in zip(string.ascii_uppercase, options, strict=False))
    return "\n".join([*lines, "Answer:"])
