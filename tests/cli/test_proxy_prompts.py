"""The prompts of `elrea route-proxy`: worded as in training, or by the chat template that docs/serving.md gives."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from elrea.commands.proxy.prompts import Prompts
from elrea.data.chat_renderer import ChatRenderer
from elrea.data.prompts import Prompter
from elrea.data.readers.prompt_reader import PromptReader
from elrea.data.templates import PlainTemplate
from elrea.data.wording import Wording
from tests.cli.commands import ROOT
from tests.small_models import byte_tokenizer

CHATS = [
    [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)]
    for roles in (
        ("user",), ("system", "user"), ("user", "assistant", "user"),
        ("system", "user", "assistant", "user", "assistant", "user"),
    )
]  # fmt: skip


def plain_template() -> str:
    """The chat template in docs/serving.md for a run that had none."""
    page = (ROOT / "docs" / "serving.md").read_text()
    (found,) = re.findall(r"```jinja\n(.*?)```", page, re.S)
    return str(found)


def plain_text(chat: list[dict[str, str]]) -> str:
    """A chat as a run without a chat template words it."""
    example = PromptReader().read({"messages": chat}, "a chat")
    return PlainTemplate().render(example, shots=False).text


def test_a_request_is_worded_as_in_training() -> None:
    """The template's variables and the text that ends an answer; what has a wrong type is the engine's to refuse."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ mood }}{{ m.content }}[/]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{{ mood }}{% endif %}"
    )
    prompter = Prompter(tokenizer, 100, Wording(chat_template_kwargs={"mood": "!"}))
    stub: Any = SimpleNamespace(prompter=prompter)
    prompts = Prompts(stub)
    text, chat = "/v1/completions", "/v1/chat/completions"
    stops: list[tuple[Any, Any]] = [
        (None, ["[/]"]), ("a", ["a", "[/]"]), (["a", "b"], ["a", "b", "[/]"]), (7, 7)
    ]  # fmt: skip
    for given, wanted in stops:
        body = {"prompt": "x", "stop": given}
        assert prompts.worded(text, body, (3, 4)) == {"prompt": [3, 4], "stop": wanted}
        assert body == {"prompt": "x", "stop": given}
    variables: list[tuple[Any, Any]] = [
        (None, {"mood": "!"}), ({"mood": "?", "a": 1}, {"mood": "?", "a": 1}), (7, 7)
    ]  # fmt: skip
    for given, wanted in variables:
        body = {"messages": [], "chat_template_kwargs": given}
        assert prompts.worded(chat, body, (3,)) == {
            "messages": [], "chat_template_kwargs": wanted, "stop": ["[/]"]
        }  # fmt: skip


def test_the_docs_template_has_the_plain_layout() -> None:
    """For engines, whose chats need a template; test_llama_server.py has llama-server apply it."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = plain_template()
    for chat in CHATS:
        found = ChatRenderer(tokenizer, "2024-07-26", {})(chat, open_turn=True)
        assert found == plain_text(chat)
