"""The settings that decide how a tokenizer words prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from elrea.errors import ConfigError

TEMPLATE_DATE = "2024-07-26"
"""The date that chat templates print by default: the one that Llama 3's template falls back on."""


@dataclass(frozen=True)
class Wording:
    """How prompts are worded for one tokenizer. It is a part of an exported ensemble.

    Raises:
        ConfigError: the date is none.
    """

    use_chat_template: bool | None = None
    """Use the tokenizer's chat template; None uses it if there is one."""
    add_bos: bool | None = None
    """Begin plain prompts with BOS; None begins them as the tokenizer's own encoding does. In a chat, the template
    writes BOS or not."""
    template_date: str = TEMPLATE_DATE
    """The day that a chat template takes for today, as 2024-07-26."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template, as enable_thinking."""
    thoughts: bool = False
    """Responses may begin with a thought: a prompt then ends as the template's prompt for generation does. Otherwise it
    ends as the template words it before a response without a thought."""
    words_alone: bool = True
    """With a chat template, the user's words alone carry the loss of the features, whatever the number of turns. False:
    in a chat without earlier turns the template's tokens carry it too, as in ensembles of older versions."""

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.template_date)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"backbone.template_date={self.template_date}: must be a date such as {TEMPLATE_DATE}"
            ) from error


def wording_facts(wording: Wording) -> dict[str, Any]:
    """What an exported ensemble keeps of it beside `use_chat_template`."""
    return {name: value for name, value in asdict(wording).items() if name != "use_chat_template"}


def wording_of(use_chat_template: bool | None, facts: object) -> Wording:
    """The wording that an exported ensemble keeps.

    Args:
        use_chat_template: as in training.
        facts: what `wording_facts` made; None for an ensemble of an older version, where BOS, if there is one, begins
            plain prompts. What later versions added is as it was before.

    Raises:
        ValueError, TypeError, KeyError: it is in another form.
        ConfigError: the date is none.
    """
    if facts is None:
        return Wording(use_chat_template, add_bos=True, words_alone=False)
    if not isinstance(facts, dict):
        raise ValueError(f"prompts is {facts!r}")
    facts = {"words_alone": False, **facts}
    known = {name: facts[name] for name in wording_facts(Wording())}
    is_bool = type(known["add_bos"]) in (bool, type(None)) and all(
        type(known[name]) is bool for name in ("thoughts", "words_alone")
    )
    if not is_bool or not isinstance(known["chat_template_kwargs"], dict):
        raise ValueError(f"prompts is {facts!r}")
    return Wording(use_chat_template, **known)
