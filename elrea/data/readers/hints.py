"""Suggestions in errors about a user's fields: overrides that work as they are printed.

A suggestion never drops a part of a question. Where the names leave it open what a field is, it names the roles and no
field.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence

_PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w.-]*", re.ASCII | re.IGNORECASE)
"""Names that neither Hydra nor a shell reads as anything else."""

_WHOLE = {
    "instruction": ("instruction", "prompt", "question", "query", "problem", "user", "human", "user_prompt",
                    "user_message", "user_input"),
    "input": ("input", "context", "passage", "article", "paragraph", "document"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history", "chat_history"),
    "messages": ("messages", "conversations", "conversation"),
    "choices": ("choices", "options"),
    "response": ("response", "output", "completion", "answer", "solution", "target", "reply", "chosen", "assistant",
                 "bot"),
}  # fmt: skip
"""Role -> the usual names of its field, in small letters with _ between the words."""
_PARTS = (
    ("response", ("correct", "gold")),
    ("choices", ("option", "choice", "candidate", "distractor")),
    ("system", ("system",)),
    ("response", ("answer", "solution", "response", "completion", "output", "target", "label", "reply", "right",
                  "summary")),
    ("input", ("input", "context", "passage", "article", "paragraph", "document", "premise", "hypothesis", "sentence",
               "story", "dialog", "history", "conversation", "background", "support", "evidence")),
    ("instruction", ("question", "query", "problem", "instruction", "prompt", "text")),
)  # fmt: skip
"""Parts of the names that people give to fields of a role; the first role with a part of the name has it."""
_PROMPT = ("instruction", "input", "system", "history", "messages", "choices")
"""Roles whose texts a model is asked with: no suggestion drops them."""
_FACTS = frozenset(
    "id ids uid uuid idx index hash type source length len size token tokens count num number lang language url link"
    " score rating category level difficulty version date time timestamp split task tags keywords rejected explanation"
    " rationale comment comments author license domain topic subject dataset model".split()
)
"""Last words of names that say something of the row, as `prompt_id` and `question_type` do."""
_INDEX = ("idx", "index")
"""Last words of such names too, unless the rest of the name is an answer's."""
_WRONG = ("distractor", "incorrect")
"""Parts of the names of columns that leave the right choice to another one."""
_COLUMN = re.compile(
    r"(|options?|opt|op|choice|answer|ending|sol|distractor|candidate|alternative|incorrect_answer)_?([a-j]|\d)"
)
"""Names of columns with one choice each: A, option_b, opa, choice1."""


Ignoring = Callable[[Sequence[str]], str]
"""The words that skip fields, as `ignoring` and `ignore_options`."""


def ignoring(names: Sequence[str]) -> str:
    """The override that skips fields: data.ignore=[a,b]."""
    return _listing("data.ignore", names)


def ignore_options(names: Sequence[str]) -> str:
    """The options that skip fields of a command's prompts: --ignore a --ignore b."""
    return " ".join(
        shlex.quote(f"--ignore={name}") if name.startswith("-") else f"--ignore {shlex.quote(name)}"
        for name in names
    )


def prompt_options(row: Mapping[str, object], names: Sequence[str], has: Collection[str]) -> str:
    """The options that read a command's prompts: --field instruction=question --field choices=A,B --ignore level.

    Args:
        row: the row.
        names: of its fields without a role.
        has: the roles of its other fields.

    Returns:
        The options, or nothing where the names leave open what is asked. A text whose name says nothing may be a part
        of the question, so no option skips it.
    """
    columns = choice_columns(names, bool(has))
    left = [name for name in names if name not in columns]
    roles = _roles(left, {*has, "response", *["choices"] * bool(columns)}, ())
    if not (columns or roles):
        return ""
    fields = {**(roles or {}), **({"choices": ",".join(columns)} if columns else {})}
    options = [f"--field {shlex.quote(f'{role}={name}')}" for role, name in fields.items()]
    left = [name for name in left if name not in (roles or {}).values()]
    left = [name for name in left if not isinstance(row.get(name), str | list | Mapping)]
    return " ".join([*options, *[ignore_options(left)] * bool(left)])


def mapping(role: str, name: str | Sequence[str]) -> str:
    """The override that gives a field, or several columns, a role: data.fields.response=solution."""
    key = f"data.fields.{role}="
    if not isinstance(name, str):
        return _listing(f"data.fields.{role}", name)
    return key + name if _PLAIN.fullmatch(name) else shlex.quote(key + _quoted(name))


def for_unknown(
    row: Mapping[str, object],
    names: Sequence[str],
    has: Collection[str],
    lists: Sequence[str] = (),
    skipped: Sequence[str] = (),
    text: str = "",
) -> str:
    """What to do about unknown fields.

    Args:
        row: the row.
        names: of its unknown fields.
        has: the roles that its other fields have.
        lists: those of the unknown fields that hold a list of texts, which may be the choices.
        skipped: what `data.ignore` has already.
        text: the field that would be plain text if the row had no other; empty if there is none.
    """
    if text and any(_role(name) == "response" for name in names):
        names = [*names, text]  # with a label, a text is a prompt
    if inner := _inner(row, names, has):
        return inner
    columns = choice_columns(names, bool(has))
    if columns and any(word in columns[0].lower() for word in _WRONG):
        return (
            f"{', '.join(map(repr, columns))} look like the wrong choices of one question; write all of its choices as"
            " one list, in random order, in a field 'choices'"
        )
    if columns:
        names, has = [name for name in names if name not in columns], {*has, "choices"}
    words = [mapping("choices", columns)] if columns else []
    roles = {} if text and text not in names else _roles(names, has, lists)
    left = [name for name in names if name not in (roles or {}).values()]
    asked = [name for name in left if name != "text" and _role(name) in _PROMPT]
    # A text whose name says nothing may be a part of the question too: a table, code.
    texts = [n for n in left if not _role(n) and isinstance(row.get(n), str | list | Mapping)]
    if roles is None or asked or ((roles or columns) and texts):
        first = f"map the choices with {words[0]} and the others" if words else "map them"
        return (
            f"{first} with data.fields (instruction, input, system, history, messages, choices, answer or response);"
            " skip with data.ignore what is no part of the question"
        )
    if not (roles or words):
        return f"map them with data.fields or skip them with {ignoring([*skipped, *left])}"
    no_choices = not {"choices", "response", "messages"} & {*has, *roles}
    if no_choices and "answer" in row and "answer" in has:  # then it is the response
        roles["response"] = "answer"
    words += [mapping(role, name) for role, name in roles.items()]
    words += [ignoring([*skipped, *left])] if left else []
    return f"map them with {' '.join(words)}"


def _inner(row: Mapping[str, object], names: Sequence[str], has: Collection[str]) -> str:
    """The advice for a list of objects: the messages of a chat, or all rows of a file; empty for other rows."""
    if {"messages", "instruction"} & {*has}:
        return ""
    for name in names:
        first = value[0] if isinstance(value := row[name], list) and value else None
        if isinstance(first, Mapping) and {"role", "from"} & first.keys():
            return f"map it with {mapping('messages', name)}"
        if (
            isinstance(first, Mapping)
            and not has
            and not any(_role(each) in _WHOLE for each in names)
        ):
            return f"if {name!r} holds the rows, save that list alone as the file"
    return ""


def _roles(
    names: Sequence[str], has: Collection[str], lists: Sequence[str]
) -> dict[str, str] | None:
    """Role -> the field that should have it; None if the names leave that open."""
    roles: dict[str, str] = {}
    is_chat = "messages" in has or _likely(names, "messages")
    asked = ("messages",) if is_chat else ("instruction", "input", "history")
    for role in (*asked, "system", "choices"):
        likely = [] if role in has else _likely(names, role)
        if role == "choices" and role not in has and not likely:
            likely = [name for name in lists if not _role(name)]
        if len(likely) > 1:
            return None
        if likely:
            roles[role] = likely[0]
    if is_chat:
        return roles
    answer = "answer" if "choices" in {*has, *roles} else "response"
    if not {answer, "response"} & {*has}:
        likely = _likely(names, "response")
        # Without choices, a field `answer` could be the response as well.
        if len(likely) > 1 or (likely and "answer" in has):
            return None
        if likely:
            roles[answer] = likely[0]
    return _completed(roles, names, has, answer)


def _completed(
    roles: dict[str, str], names: Sequence[str], has: Collection[str], answer: str
) -> dict[str, str] | None:
    """The roles, with the only field that is left for an instruction or an answer that is missing; else None."""
    given = {*has, *roles}
    missing = ["instruction"] * ("instruction" not in given)
    missing += [answer] * (not {"answer", "response"} & given)
    free = [name for name in names if not _role(name) and name not in roles.values()]
    if not missing:
        return roles
    if missing == ["instruction"] and "input" in roles:  # the only text that is asked
        return None if free else {"instruction": roles.pop("input"), **roles}
    return {**roles, missing[0]: free[0]} if len(missing) == len(free) == 1 else None


def _likely(names: Sequence[str], role: str) -> list[str]:
    """The fields that may have a role: those with one of its usual names, else those with a part of one."""
    whole = [name for name in names if "_".join(_words(name)) in _WHOLE[role]]
    return whole or [name for name in names if _role(name) == role]


def _role(name: str) -> str:
    """The role that a name suggests; "fact" for what says something of the row, "" if the name says nothing."""
    words = _words(name)
    whole = "_".join(words)
    for role, usual in _WHOLE.items():
        if whole in usual:
            return role
    found = next((role for role, parts in _PARTS if any(part in whole for part in parts)), "")
    is_index = bool(words) and words[-1] in _INDEX and found == "response"
    return "fact" if words and words[-1] in _FACTS and not is_index else found


def choice_columns(names: Sequence[str], others: bool) -> list[str]:
    """The columns with one choice each, if there are several and the row has more than these.

    Args:
        names: of the row's fields without a role.
        others: whether it has other fields.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        match = _COLUMN.fullmatch("_".join(_words(name)))
        if match and (match[1] or match[2].isalpha()):
            found.setdefault(match[1], []).append(name)
    columns = max(found.values(), key=len, default=[])
    return columns if len(columns) > 1 and (others or len(columns) < len(names)) else []


def _words(name: str) -> list[str]:
    """The words of a name in small letters: correct, option of both correctOption and "Correct option"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", apart.lower())


def _listing(key: str, names: Sequence[str]) -> str:
    """An override that sets a list of names."""
    if all(map(_PLAIN.fullmatch, names)):
        return f"{key}=[{','.join(names)}]"
    return shlex.quote(f"{key}=[{','.join(map(_quoted, names))}]")


def _quoted(name: str) -> str:
    """A name in Hydra's quotes."""
    escaped = re.sub(r'(\\+)(?="|\$\{|$)', r"\1\1", name).replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'
