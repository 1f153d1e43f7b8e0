"""Pieces of text are reported once they are certain: whole characters, and no possible beginning of a stop text."""

from __future__ import annotations

import torch

from elrea.method.ensemble.decoding import Stream, stopped
from tests.small_models import byte_tokenizer

TOKENIZER = byte_tokenizer()


def pieces(text: str, stop: list[str], end: bool = True) -> list[str]:
    pieces_seen: list[str] = []
    stream = Stream(
        TOKENIZER,
        [1],
        [TOKENIZER.eos_token_id],
        stop,
        lambda _number, piece: pieces_seen.append(piece),
    )
    stream.put(torch.tensor([[7, 7], [7, 7]]))  # the prompts
    for token in TOKENIZER(text)["input_ids"]:
        stream.put(torch.tensor([0, token]))
    if end:
        stream.put(torch.tensor([0, TOKENIZER.eos_token_id]))
        stream.put(torch.tensor([0, 9]))  # padding of a finished row
    stream.end()
    return pieces_seen


def test_characters_of_several_bytes_are_reported_whole() -> None:
    assert pieces("aé€😀b", []) == ["a", "é", "€", "😀", "b"]


def test_a_possible_beginning_of_a_stop_text_is_delayed() -> None:
    assert pieces("one\nQ2", ["\nQ:"]) == ["o", "n", "e", "\nQ2"]
    assert "".join(pieces("one\nQ: two", ["\nQ:"])) == "one"
    assert "".join(pieces("one\nQ", ["\nQ:"])) == "one\nQ", "it was not a stop text"


def test_without_an_end_the_rest_is_reported() -> None:
    assert "".join(pieces("ab\n", ["\n\n"], end=False)) == "ab\n"
    assert pieces("", []) == []


def test_the_first_of_several_stop_texts_counts() -> None:
    assert stopped("a b c", ["c", "b"]) == ("a ", True)
    assert stopped("a b c", ["x"]) == ("a b c", False)
    assert stopped("a b c", []) == ("a b c", False)
