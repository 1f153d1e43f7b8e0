"""Applies a tokenizer's chat template with a fixed date, in transformers' own sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]

OTHER_DAY = "2031-01-02"
"""A date that differs from usual ones in year, month, day and weekday."""


class ChatRenderer:
    """The chat template of a tokenizer as a function of messages.

    Args:
        tokenizer: has a chat template.
        day: the date that the template takes for today, in ISO format.
        variables: further variables of the template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, day: str, variables: Mapping[str, Any]
    ) -> None:
        self._tokenizer = tokenizer
        self._day = day
        self._variables = dict(variables)

    def __call__(self, messages: Messages, *, open_turn: bool) -> str:
        """The messages as text. System turns are put into the first user's turn if the template has no such role.

        Args:
            messages: role and content of each.
            open_turn: add the template's prompt for generation.

        Raises:
            jinja2.TemplateError: the template refuses the messages, or fails.
        """
        from jinja2 import TemplateError

        try:
            return self._apply(messages, open_turn)
        except TemplateError:
            # Some templates (Gemma's) have no system role: put its words into the user's turn.
            return self._apply(_fold_system(messages), open_turn)

    def prints_the_date(self) -> bool:
        """Whether any of a few usual chats is another text on another day."""
        from jinja2 import TemplateError

        other = ChatRenderer(self._tokenizer, OTHER_DAY, self._variables)
        user, answer, system = (
            {"role": role, "content": "?"} for role in ("user", "assistant", "system")
        )
        for chat in ([user], [system, user], [user, answer, user], [system, user, answer, user]):
            for is_open in (True, False):
                try:
                    if self(chat, open_turn=is_open) != other(chat, open_turn=is_open):
                        return True
                except TemplateError:
                    continue
        return False

    def _apply(self, messages: Messages, open_turn: bool) -> str:
        from jinja2 import TemplateError

        try:
            with self._dated():
                text = self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False,
                    add_generation_prompt=open_turn, **self._variables,
                )  # fmt: skip
        except TemplateError:
            raise
        except (
            Exception
        ) as error:  # any error in the template's own code, as adding a number to a text
            line = " ".join(str(error).split())[:200]
            raise TemplateError(f"{type(error).__name__}: {line}") from error
        return str(text)

    @contextmanager
    def _dated(self) -> Iterator[None]:
        """Lets the template's `strftime_now` tell the fixed date.

        transformers takes no functions as variables of a template. It keeps compiled templates, whose globals jinja2
        reads when they are rendered.
        """
        from transformers.utils.chat_template_utils import _compile_jinja_template

        template = _compile_jinja_template(self._tokenizer.get_chat_template())
        template.globals["strftime_now"] = datetime.fromisoformat(self._day).strftime
        try:
            yield
        finally:
            del template.globals["strftime_now"]


def _fold_system(messages: Messages) -> list[dict[str, str]]:
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [dict(message) for message in messages if message["role"] != "system"]
    rest[0]["content"] = "\n\n".join([*system, rest[0]["content"]])
    return rest
