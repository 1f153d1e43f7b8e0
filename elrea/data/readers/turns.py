"""Reads the chats of instruction files: OpenAI's messages, ShareGPT's conversations, LLaMA-Factory's history."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from elrea.data.readers.formats import BadRow
from elrea.errors import did_you_mean
from elrea.store.files import is_text

END = "<|endoftext|>"
"""A text that ends the completions in many published prompt/completion files; it is removed."""

LearnedTurns = Literal["last", "all"]
"""Which assistant turns of a chat carry loss in training: the last one, or every one."""

Turns = tuple[tuple[str, str], ...]
"""(role, text) of each turn; roles are system, user and assistant."""
TurnLoss = tuple[bool | None, ...]
"""Of each turn, as `elrea.data.examples.Example.turn_loss`."""

_ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
_TOOL_ROLES = ("tool", "function", "ipython", "function_call", "observation", "tool_call")
"""Roles of tool calls and their results: OpenAI's, Llama's and LLaMA-Factory's."""
_CALLS = ("tool_calls", "function_call")
"""Keys of a message that calls tools; it may have no content."""
_TEXT_PARTS = ("text", "input_text", "output_text")
_FLAGS = ("train", "training", "train_on_turn", "loss")
"""Names of a boolean that says what OpenAI's weight does: in Axolotl's files and in ms-swift's."""
_NOT_READ = {
    "tool_calls": "tool calls are not read",
    "function_call": "tool calls are not read",
    "tool_call_id": "tool calls are not read",
    "reasoning_content": "write reasoning into the content, in the marks that the chat template knows",
    "reasoning": "write reasoning into the content, in the marks that the chat template knows",
    "thinking": "write reasoning into the content, in the marks that the chat template knows",
    "audio": "a message may have texts only",
    "images": "a message may have texts only",
    "refusal": "write a refusal into the content",
}
"""Keys of a message that are a part of what was said -> why they are refused."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat as instruction, earlier turns and response."""

    instruction: str
    history: Turns
    response: str
    turn_loss: TurnLoss = ()
    """Of each turn of the history: True if it carries loss too, False if it never does, None if it is as any other part
    of a prompt; empty if all are None."""


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    text: str
    learned: bool | None
    """What the message's weight says: None if it has none."""


class UnreadKey(BadRow):
    """A key of a message, or of its content parts, that is not read; the settings may skip it.

    Args:
        where: the row's place.
        problem: what is wrong and what to change, to which the way to skip it is added.
        place: of the key: "a message".
        key: its name.
    """

    def __init__(self, where: str, problem: str, place: str, key: str) -> None:
        super().__init__(where, problem, f"key {key!r} in {place}")
        self.problem, self.key = problem, key


def chat(
    messages: object,
    where: str,
    learned: LearnedTurns = "last",
    ignore: Collection[str] = (),
    given: int = 0,
) -> Chat:
    """Instruction, history and response of a chat.

    The response is the last assistant turn that carries loss, the turn before it is the instruction, and all earlier
    turns are history. Turns after the response have nothing to learn, and are left out.

    Args:
        messages: a list of {role, content} or of {from, value}. A weight of 0 (or train: false) takes the loss from an
            assistant turn.
        where: the row's place, for the messages.
        learned: the assistant turns that carry loss.
        ignore: keys of a message to skip; "*" skips all unknown ones.
        given: number of messages at the beginning that belong to a prompt, and carry no loss.

    Raises:
        UnreadKey: a key that is unknown or not read.
        BadRow: not a list of messages, an unknown role, content that is not text, tool calls, or no answer to a user
            turn.
    """
    if not isinstance(messages, list):
        raise BadRow(where, "messages must be a list of {role, content}")
    turns = [_turn(message, where, ignore) for message in messages]
    answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    taught = [number for number in answers if turns[number].learned is not False]
    if answers and not taught:
        raise BadRow(
            where,
            "every assistant turn has the weight 0, so that nothing can be learned; remove the line",
            "every assistant turn has the weight 0",
        )
    last = taught[-1] if taught else 0
    if last < 1 or turns[last - 1].role != "user":
        raise BadRow(where, "the last assistant turn must follow a user turn")
    before = turns[: last - 1]
    loss = turn_loss(
        [(turn.role, turn.text) for turn in before], learned, [t.learned for t in before], given
    )
    return Chat(
        turns[last - 1].text,
        tuple((turn.role, turn.text) for turn in before),
        stripped(turns[last].text),
        loss,
    )


def turn_loss(
    turns: Sequence[tuple[str, str]],
    learned: LearnedTurns,
    weights: Sequence[bool | None] = (),
    given: int = 0,
) -> TurnLoss:
    """What of a history carries loss in training, see `Chat.turn_loss`.

    An empty answer has nothing to learn: its end of turn alone would teach the model to say nothing.

    Args:
        turns: the history.
        learned: the assistant turns that carry loss.
        weights: of each turn, what its message says of itself; empty if none says anything.
        given: number of turns at the beginning that belong to a prompt.
    """
    loss: list[bool | None] = []
    for number, (role, text) in enumerate(turns):
        own = weights[number] if weights else None
        if role != "assistant":
            loss.append(None)
        elif own is False:
            loss.append(False)
        else:
            taught = learned == "all" and number >= given and stripped(text)
            loss.append(True if taught else None)
    return tuple(loss) if any(flag is not None for flag in loss) else ()


def as_messages(prompt: object, completion: object) -> tuple[object, int]:
    """TRL's prompt and completion, of which one or both are lists of messages, as one list of messages.

    Returns:
        The messages, and how many of them are the prompt's.
    """
    parts: list[object] = []
    count = 0
    for role, part in (("user", prompt), ("assistant", completion)):
        parts += part if isinstance(part, list) else [{"role": role, "content": part}]
        count = count or len(parts)
    return parts, count


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


def _turn(message: object, where: str, ignore: Collection[str]) -> _Turn:
    """One message: {role, content}, or ShareGPT's {from, value}."""
    if not isinstance(message, Mapping):
        raise _no_message(where)
    share = "role" not in message and "from" in message
    names = ("from", "value") if share else ("role", "content")
    role, content = (message.get(name) for name in names)
    if isinstance(role, str) and role in _TOOL_ROLES:
        raise BadRow(
            where,
            f"a message with the role {role!r}: tool calls are not read; remove the line",
            f"role {role!r}",
        )
    _check_keys(message, names, where, ignore)
    if isinstance(content, list):
        content = _joined(content, where, ignore)
    if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str):
        known = isinstance(role, str) and role not in _ROLES
        raise _no_message(where, f"role {role!r}" if known else "")
    return _Turn(_ROLES[role], encodable(content, where), _learned(message, _ROLES[role], where))


def _no_message(where: str, role: str = "") -> BadRow:
    problem = "a message needs a role (system, user, assistant) and a text as content"
    return BadRow(
        where,
        problem + (f", not the {role}" if role else ""),
        role or "a message without role or text",
    )


def _check_keys(
    message: Mapping[str, Any], names: tuple[str, str], where: str, ignore: Collection[str]
) -> None:
    """Refuse a key of a message that would be left out, unless it is empty, as exports fill missing keys."""
    known = {*names, "weight", *_FLAGS}
    for key, value in message.items():
        if key in known or key in ignore or value is None or value in ("", [], {}):
            continue
        if key in _NOT_READ:
            problem = f"the key {key!r} of a message: {_NOT_READ[key]}"
        elif "*" in ignore:
            continue
        else:
            problem = (
                f"unknown key {key!r} in a message{did_you_mean(key, [*names, 'weight', 'train'])}"
            )
        if key in _CALLS and not message.get(names[-1]):  # skipped, it would leave nothing
            raise BadRow(where, f"{problem}; remove the line", f"key {key!r} in a message")
        raise UnreadKey(where, f"{problem}; remove it", "a message", key)


def _learned(message: Mapping[str, Any], role: str, where: str) -> bool | None:
    """What a message's weight, or Axolotl's and ms-swift's flag for it, says.

    Raises:
        BadRow: a weight other than 0 and 1, a flag that is no boolean, two that disagree, or a turn that is not the
            assistant's and is to be learned.
    """
    said: dict[str, bool] = {}
    for key in ("weight", *_FLAGS):
        value = message.get(key)
        if value is None:
            continue
        if value not in (0, 1) or (key != "weight" and not isinstance(value, bool)):
            allowed = "0 or 1" if key == "weight" else "true or false"
            raise BadRow(
                where,
                f"the {key} of a message must be {allowed}, not {value!r}; correct it",
                f"{key} other than {allowed}",
            )
        said[key] = bool(value)
    if len(set(said.values())) > 1:
        problem = f"{' and '.join(said)} of a message say different things; keep one of them"
        raise BadRow(where, problem)
    learned = next(iter(said.values()), None)
    if learned and role != "assistant":
        raise BadRow(
            where,
            f"the {next(iter(said))} of a {role} turn is {message[next(iter(said))]!r}: only the assistant's turns are"
            " learned one by one; remove it, and set training.loss_on=all to learn whole chats",
            f"a {role} turn that is to be learned",
        )
    return learned


def _joined(parts: list[Any], where: str, ignore: Collection[str]) -> str | None:
    """The texts of content parts, one a line; None if there are none.

    Raises:
        BadRow: a part that is not text, such as an image, or has more than a text.
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
        for key, value in part.items():
            if value and key not in ("type", "text", *ignore) and "*" not in ignore:
                problem = f"unknown key {key!r} in a content part; remove it"
                raise UnreadKey(where, problem, "a content part", key)
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
