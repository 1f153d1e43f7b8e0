"""The tokens that a tokenizer can hand out, against the rows of the model's embedding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elrea.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """The ids that a model has.

    Attributes:
        rows: Rows of the embedding; None if the configuration does not say.
        outside: Tokens of the tokenizer without a row, by id.
    """

    rows: int | None
    outside: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, rows: int | None) -> Vocabulary:
        """The tokens of a tokenizer that a model of so many rows lacks."""
        if rows is None:
            return cls(None)
        names: dict[str, int] = tokenizer.get_vocab()
        return cls(rows, {i: name for name, i in sorted(names.items()) if i >= rows})

    def has(self, token: int) -> bool:
        """Whether the embedding has a row for the id."""
        return token >= 0 and (self.rows is None or token < self.rows)

    def check(self, ids: Iterable[int], name: str, *, chat: bool = False) -> None:
        """Refuses ids that the embedding has no row for; on a GPU they would end the process.

        Args:
            ids: Of one text.
            name: Of the example or prompt, for the message.
            chat: Whether a chat template formatted it, which may have written the token.

        Raises:
            DataError: Which token, its id, and what to do.
        """
        if self.rows is None:
            return
        token = max(ids, default=0)
        if token < self.rows:
            return
        shown = f"{self.outside[token]!r} (id {token})" if token in self.outside else f"id {token}"
        advice = "; or set backbone.use_chat_template=false, if the template writes it" * chat
        raise DataError(
            f"{name}: token {shown} is beyond the {self.rows:,} rows of the backbone's embedding; take the tokenizer "
            f"that belongs to the model, or resize and train the embedding before{advice}"
        )
