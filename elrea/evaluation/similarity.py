"""How similar a written text is to the reference: ROUGE-L, and SQuAD's token F1 and exact match, by torchmetrics.

ROUGE-L (Lin, 2004) is the F-measure of the longest common subsequence of words, without stemming. Words are runs of
letters and digits in lower case. In ASCII texts they are those of the package rouge-score; that one drops all other
letters, so that two Chinese texts would never be similar. SQuAD (Rajpurkar et al., 2016) leaves out case, punctuation
and the articles a, an, the. In scripts that put no spaces between words, each character is a word for all three.
"""

from __future__ import annotations

import unicodedata

MEASURES = ("rouge_l", "f1", "exact_match")
"""Names of the measures, each 0 to 1."""
NAMES = {"rouge_l": "ROUGE-L", "f1": "F1", "exact_match": "exact match"}
"""As tables show them."""

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""First words of the Unicode names of characters whose scripts put no spaces between words."""


def similarity(text: str, reference: str) -> dict[str, float]:
    """The measures by name, rounded to six digits.

    Args:
        text: What was written; an empty one is similar to nothing.
        reference: The response of the example.
    """
    from torchmetrics.functional.text import squad
    from torchmetrics.functional.text.rouge import rouge_score

    if not text.strip():
        return dict.fromkeys(MEASURES, 0.0)
    given, wanted = _spaced(text), _spaced(reference)
    rouge = rouge_score(
        given, wanted, rouge_keys="rougeL", normalizer=_letters, tokenizer=str.split
    )
    pairs = squad(
        {"prediction_text": given, "id": "0"},
        {"answers": {"text": [wanted], "answer_start": [0]}, "id": "0"},
    )
    return {
        "rouge_l": round(float(rouge["rougeL_fmeasure"]), 6),
        "f1": round(float(pairs["f1"]) / 100, 6),
        "exact_match": round(float(pairs["exact_match"]) / 100, 6),
    }


def _letters(text: str) -> str:
    """The text in lower case, with a space for everything but letters, their marks, and digits."""
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text.lower())


def _spaced(text: str) -> str:
    """The text in composed form (NFC), with spaces round each character of a script without spaces.

    All punctuation becomes the ASCII kind that both measures know.
    """
    if text.isascii():
        return text
    words, alone = "", False
    for character in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(character)[0]
        mark = kind == "M"  # belongs to the letter before it
        if kind == "P" and not character.isascii():
            character = "'"
        before, alone = alone, alone if mark else _unspaced(character)
        words += f" {character}" if (alone or before) and not mark else character
    return words


def _unspaced(character: str) -> bool:
    """Whether a letter is of a script without spaces, and so a word of its own."""
    if character < "\u0e00" or unicodedata.category(character)[0] not in "LN":
        return False
    return unicodedata.name(character, "").split(" ")[0] in _UNSPACED
