"""The prompts of requests to `elrea route-proxy`, worded for the engine as in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from elrea.commands.proxy.http import Refused

if TYPE_CHECKING:
    from elrea.data.prompts import Ids
    from elrea.method.ensemble.ensemble import Ensemble, Route


def prompt_of(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt of a request, as a row of data=jsonl.

    Raises:
        Refused: The request has none, or several.
    """
    chat = path.endswith("/chat/completions")
    name = "messages" if chat else "prompt"
    value = body.get(name)
    if isinstance(value, list) and not chat and len(value) == 1:
        value = value[0]
    if not isinstance(value, list if chat else str) or not value:
        raise Refused(400, f"{name!r} must be {'a list of messages' if chat else 'one text'}")
    return {name: value}


class Prompts:
    """Routes prompts, and words them as the ensemble does for its own answers.

    Args:
        ensemble: Whose router and wording are used.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble, self._prompter = ensemble, ensemble.prompter

    def routed(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Route, Ids]]:
        """The route and the token ids of each prompt.

        Raises:
            DataError: A prompt is empty, or cannot be read.
        """
        examples = self._ensemble.examples(rows)
        ids = [self._prompter.encode(example, end=False).prompt for example in examples]
        return list(zip(self._ensemble.route(examples), ids, strict=True))

    def worded(self, path: str, body: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
        """A request whose prompt and end of the answer are those of training.

        A prompt becomes token ids: an engine would apply no chat template to it, and begin it by rules of its own. A
        chat stays one, and the engine's template gets the run's variables. Values of a wrong type are left to the
        engine, which refuses them.

        Args:
            path: Of the request.
            body: The request.
            ids: Of its prompt.
        """
        made = dict(body)
        if not path.endswith("/chat/completions"):
            made["prompt"] = list(ids)
        elif variables := self._prompter.wording.chat_template_kwargs:
            given = body.get("chat_template_kwargs") or {}
            if isinstance(given, Mapping):
                made["chat_template_kwargs"] = {**variables, **given}
        if own := self._prompter.stop:
            stop = body.get("stop") or []
            if isinstance(stop, str | list):
                made["stop"] = [*([stop] if isinstance(stop, str) else stop), *own]
        return made
