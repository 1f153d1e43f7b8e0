"""What a tokenizer cannot express of a corpus: choices that become the same tokens, responses that become nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal
from unicodedata import combining, normalize

from elrea.data.drops import Drops
from elrea.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elrea.data.corpus import Corpus
    from elrea.data.examples import Example
    from elrea.data.prompts import Prompter

Loss = Literal["", "all", "some", "form"]
"""What a tokenizer loses of a text: nothing, all of it, some characters, or only their form, such as capitals."""

_REASONS = {
    "all": "the tokenizer can express nothing of it",
    "some": "the tokenizer has no token for some characters of it",
    "form": "the tokenizer changes characters of it, such as capitals or line breaks",
}
_CHOSEN = "the tokenizer can express nothing of a choice"


class Expression:
    """Finds what is lost when a tokenizer encodes a text and decodes it again; spaces do not count.

    Args:
        tokenizer: any tokenizer of transformers.
        texts: the texts that will be asked about.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Callable[[], Iterable[str]]):
        self._tokenizer = tokenizer
        self._texts = texts

    def loss(self, text: str) -> Loss:
        """What is lost of a text."""
        if self._by_character and self._suspects.isdisjoint(text):
            return ""
        return self._loss(text)

    def whole(self, text: str) -> Loss:
        """Whether all of a text is lost: "all" or ""."""
        if self._by_character and not self._suspects.issuperset(text.replace(" ", "")):
            return ""
        return "all" if self._loss(text) == "all" else ""

    def _loss(self, text: str) -> Loss:
        tokenizer = self._tokenizer
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        unknown = tokenizer.unk_token_id
        if unknown is not None and str(tokenizer.unk_token) not in text:
            ids = [token for token in ids if token != unknown]
        kept = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)).replace(" ", "")
        wanted = text.replace(" ", "")
        if kept == wanted:
            return ""
        if not kept.strip():
            return "all" if wanted.strip() else ""
        return "form" if _plain(kept) == _plain(wanted) else "some"

    @cached_property
    def _by_character(self) -> bool:
        """Whether a text is expressed if each of its characters is; not with whole words as tokens."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is not None and type(backend.model).__name__ in ("BPE", "Unigram")

    @cached_property
    def _suspects(self) -> frozenset[str]:
        """The characters of the texts that are not expressed alone."""
        found = set[str]().union(*self._texts()) - {" "}
        return frozenset(character for character in found if self._loss(f"a{character}a"))


def check(prompter: Prompter, corpus: Corpus) -> Drops:
    """The texts of which the tokenizer loses all or a part, by kind.

    Args:
        prompter: words the examples for the tokenizer.
        corpus: train and test.

    Raises:
        DataError: two choices of a test question become the same tokens, or one becomes no token; or the tokenizer can
            express nothing of any response or prompt of a split.
    """
    check_choices(prompter, corpus.test)
    splits = {"train": corpus.train, "test": corpus.test}
    expression = Expression(
        prompter.tokenizer,
        lambda: (text for split in splits.values() for each in split for text in _texts(each)),
    )
    drops = Drops()
    for split, examples in splits.items():
        for kind, text_of in (("prompts", _prompt), ("responses", _response)):
            asked = [(e, text) for e in examples if (text := text_of(e)).strip()]
            # Of a prompt, what is lost matters only if nothing is left.
            find = expression.loss if kind == "responses" else expression.whole
            losses = [find(text) for _, text in asked]
            if losses and set(losses) == {"all"}:
                example, text = asked[0]
                raise DataError(
                    f"{example.id}: the tokenizer can express nothing of {text[:40]!r}, nor of any other of the"
                    f" {len(asked):,} {split} {kind}; use a backbone that knows their script"
                )
            for (example, _), loss in zip(asked, losses, strict=True):
                if loss:
                    drops.add(example.source, f"{split} {kind}", _REASONS[loss], example.id)
    for example in corpus.test:
        # The right choice is the response, and counted there.
        others = {*example.choices, *_options(example)} - {example.response}
        if any(map(expression.whole, others)):
            drops.add(example.source, "test questions", _CHOSEN, example.id)
    return drops


def check_choices(prompter: Prompter, examples: Sequence[Example]) -> None:
    """Refuse questions whose choices cannot be told apart.

    Raises:
        DataError: two choices become the same tokens, or a choice becomes none.
    """
    found = [(e, problem) for e in examples if (problem := same_choices(prompter, e))]
    if found:
        example, problem = found[0]
        more = f" ({len(found):,} questions are like this)" if len(found) > 1 else ""
        raise DataError(
            f"{example.id}: {problem}{more}; word them otherwise, or use another backbone"
        )


def same_choices(prompter: Prompter, example: Example) -> str:
    """Which choices of a question the tokenizer cannot tell apart, or express at all; empty if there are none."""
    if not example.choices:
        return ""
    shown = _options(example)
    options = [
        tuple(prompter.tokenizer(f" {text}", add_special_tokens=False, verbose=False)["input_ids"])
        for text in shown
    ]
    for kind, texts, coded in (
        ("choice", example.choices, prompter.choices(example)),
        ("option", shown, options),
    ):
        if problem := same_tokens(kind, texts, coded):
            return problem
    return ""


def same_tokens(kind: str, texts: Sequence[str], coded: Sequence[tuple[int, ...]]) -> str:
    """Which texts have no token, or the tokens of another one; empty if there are none.

    Args:
        kind: what they are, "choice".
        texts: all different; two that differ in the white space round them may have the same tokens.
        coded: their token ids.
    """
    seen: dict[tuple[int, ...], str] = {}
    for text, ids in zip(texts, coded, strict=True):
        if not ids and text.strip():
            return f"the {kind} {text!r} becomes no token"
        if ids in seen and seen[ids].strip() != text.strip():
            return f"the {kind}s {seen[ids]!r} and {text!r} become the same tokens"
        seen[ids] = text
    return ""


def _prompt(example: Example) -> str:
    return "" if example.plain_text else example.instruction


def _response(example: Example) -> str:
    return example.instruction if example.plain_text else example.response


def _options(example: Example) -> tuple[str, ...]:
    """The texts that a question's prompt shows behind letters; empty if the choices are texts."""
    return tuple(getattr(example, "options", ()))


def _texts(example: Example) -> tuple[str, ...]:
    return example.instruction, example.response, *example.choices, *_options(example)


def _plain(text: str) -> str:
    """A text without capitals, accents, white space and other forms of a character."""
    letters = normalize("NFKD", text.casefold())
    return "".join(c for c in letters if not combining(c) and not c.isspace())
