"""Reads the chats of instruction files: OpenAI's messages, ShareGPT's conversations, LLaMA-Factory's history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elrea.data.readers.formats import BadRow
from elrea.store.files import is_text

END = "<|endoftext|>"
"""A text that ends the completions in many published prompt/completion files; it is removed."""

Turns = tuple[tuple[str, str], ...]
"""(role, text) of each turn; roles are system, user and assistant."""

_ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
_TEXT_PARTS = ("text", "input_text", "output_text")


def chat(messages: object, where: str) -> tuple[str, Turns, str]:
    """Instruction, history and response of a chat.

    The last assistant turn is the response, the turn before it the instruction, and all earlier turns are history. User
    turns after the response have no answer and are ignored.

    Raises:
        BadRow: not a list of messages, an unknown role, content that is not text, or no answer to a user turn.
    """
    if not isinstance(messages, list):
        raise BadRow(where, "messages must be a list of {role, content}")
    turns = [_turn(message, where) for message in messages]
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    if len(turns) < 2 or turns[-2][0] != "user":
        raise BadRow(where, "the last assistant turn must follow a user turn")
    return turns[-2][1], tuple(turns[:-2]), stripped(turns[-1][1])


def as_messages(prompt: object, completion: object) -> object:
    """TRL's prompt and completion, of which one or both are lists of messages, as one list of messages."""
    parts: list[object] = []
    for role, part in (("user", prompt), ("assistant", completion)):
        parts += part if isinstance(part, list) else [{"role": role, "content": part}]
    return parts


def history(pairs: object, where: str) -> Turns:
    """The earlier turns in LLaMA-Factory's `history`: a list of [instruction, response].

    Raises:
        BadRow: not a list of pairs of texts.
    """
    if pairs is None or pairs == "":
        return ()
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in pairs
    ):
        raise BadRow(where, "history must be a list of [instruction, response]")
    return tuple(
        (role, encodable(text, where))
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    )


def _turn(message: object, where: str) -> tuple[str, str]:
    """Role and text of one message: {role, content}, or ShareGPT's {from, value}."""
    role: object = None
    content: object = None
    if isinstance(message, Mapping):
        share = "role" not in message and "from" in message
        role, content = (
            message.get(name) for name in (("from", "value") if share else ("role", "content"))
        )
    if isinstance(content, list):
        content = _joined(content, where)
    if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str):
        known = isinstance(role, str) and role not in _ROLES
        raise BadRow(
            where,
            "a message needs a role (system, user, assistant) and a text as content"
            + (f", not the role {role!r}" if known else ""),
            f"role {role!r}" if known else "a message without role or text",
        )
    return _ROLES[role], encodable(content, where)


def _joined(parts: list[Any], where: str) -> str | None:
    """The texts of content parts, one a line; None if there are none.

    Raises:
        BadRow: a part that is not text, such as an image.
    """
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            raise BadRow(
                where,
                f"a content part of type {kind!r}; a message may have texts only",
                f"content part of type {kind!r}",
            )
        texts.append(text)
    return "\n".join(texts) if texts else None


def encodable(text: str, where: str) -> str:
    r"""The text itself.

    Raises:
        BadRow: it has half a surrogate pair ("\ud800"), which JSON allows and no tokenizer accepts.
    """
    if not is_text(text):
        problem = f"not UTF-8: half a surrogate pair, {text!r}"
        raise BadRow(where, problem, "half a surrogate pair")
    return text


def stripped(response: str) -> str:
    """A response without white space round it and without `END`."""
    return response.strip().removesuffix(END).rstrip()


def is_assistant(role: object) -> bool:
    """Whether a message of this role is the assistant's."""
    return isinstance(role, str) and _ROLES.get(role) == "assistant"
