"""What tokenizers cannot express: equal choices are refused by name, lost responses are counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from elrea.data.corpus import Corpus
from elrea.data.examples import Example
from elrea.data.expressible import Expression, check, same_choices, same_tokens
from elrea.data.prompts import Prompter
from elrea.errors import DataError
from tests.small_models import byte_tokenizer


def free(name: str, response: str, instruction: str = "is it a b") -> Example:
    return Example(name, instruction, response, "s")


def asked(name: str, *choices: str, answer: int = 0) -> Example:
    return Example(name, "is it a b", choices[answer], "s", choices=choices)


def wrapped(backend: Tokenizer, **settings: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", **settings
    )


def letters(unknown: bool, lower: bool = False) -> PreTrainedTokenizerFast:
    """One token for each of a few letters; other characters become <unk>, or nothing."""
    names = ["<s>", "</s>", "<unk>", " ", *"abistuABISTU"]
    vocabulary = {name: number for number, name in enumerate(names)}
    model = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>" if unknown else None)
    backend = Tokenizer(model)
    backend.decoder = decoders.Fuse()
    if lower:
        backend.normalizer = normalizers.Lowercase()
    return wrapped(backend, **({"unk_token": "<unk>"} if unknown else {}))


def words() -> PreTrainedTokenizerFast:
    """One token for each of a few words; all others become <unk>."""
    names = ["<s>", "</s>", "<unk>", "is", "it", "a", "b", "yes"]
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrapped(backend, unk_token="<unk>")


def fallback() -> PreTrainedTokenizerFast:
    """Llama's kind: a token for each byte of what is not in the vocabulary."""
    names = ["<s>", "</s>", "<unk>", "▁", *"abist", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return wrapped(backend, unk_token="<unk>")


def lines_of(prompter: Prompter, corpus: Corpus) -> list[str]:
    return list(check(prompter, corpus).lines())


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "fallback": fallback,
    "unknown": lambda: letters(True),
    "dropping": lambda: letters(False),
    "lower": lambda: letters(True, lower=True),
    "words": words,
}


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("a b", {}),
        ("是", {"unknown": "all", "dropping": "all", "lower": "all", "words": "all"}),
        ("a是", {"unknown": "some", "dropping": "some", "lower": "some", "words": "all"}),
        ("a 是", {"unknown": "some", "dropping": "some", "lower": "some", "words": "some"}),
        ("US", {"lower": "form", "words": "all"}),
        ("yes", {"unknown": "some", "dropping": "some", "lower": "some"}),
        ("é", {"unknown": "all", "dropping": "all", "lower": "all", "words": "all"}),
    ],
)
def test_what_is_lost(text, lost):
    for name, tokenizer in TOKENIZERS.items():
        for texts in ([text], ["a b", text, "x"]):
            expression = Expression(tokenizer(), lambda texts=texts: texts)  # type: ignore[misc]
            assert expression.loss(text) == lost.get(name, ""), name


def test_the_quick_way_equals_the_slow_one():
    """Texts are judged by their characters where that is enough."""
    texts = [
        a + b + c
        for a in "abé "
        for b in ("", "是", "S", "\n")
        for c in ("", "it", "<unk>", "</s>")
    ]
    for tokenizer in TOKENIZERS.values():
        expression = Expression(tokenizer(), lambda: texts)
        assert [expression.loss(text) for text in texts] == [expression._loss(t) for t in texts]
        wholly = [expression._loss(text) == "all" for text in texts]
        assert [expression.whole(text) == "all" for text in texts] == wholly


@pytest.mark.parametrize(
    ("name", "choices", "said"),
    [
        ("unknown", ("是", "否"), "the choices '是' and '否' become the same tokens"),
        ("dropping", ("a", "a是"), "the choices 'a' and 'a是' become the same tokens"),
        ("lower", ("US", "us"), "the choices 'US' and 'us' become the same tokens"),
        ("words", ("b", "aa", "bb"), "the choices 'aa' and 'bb' become the same tokens"),
        ("bytes", ("是", "否", "US", "us"), ""),
        ("fallback", ("是", "否", "US", "us"), ""),
        ("unknown", ("US", "us", "是"), ""),
    ],
)
def test_choices_that_become_the_same_tokens_are_refused(name, choices, said):
    for example in (asked("f.jsonl:3", *choices), asked("f.jsonl:3", *choices, answer=1)):
        prompter = Prompter(TOKENIZERS[name](), 100)
        assert same_choices(prompter, example) == said
        other = asked("f.jsonl:1", "a", "b")
        corpus = Corpus("x", (free("t", "a"),), (), (other, example, replace(example, id="g")))
        if not said:
            lines_of(prompter, corpus)
            continue
        with pytest.raises(DataError) as caught:
            lines_of(prompter, corpus)
        assert str(caught.value) == (
            f"f.jsonl:3: {said} (2 questions are like this); word them otherwise, or use another backbone"
        )


def test_lost_responses_are_counted_and_said():
    train = [free("t:1", "a"), free("t:2", "是"), free("t:3", "a是"), free("t:4", "否")]
    test = [free("v:1", "US"), free("v:2", "a", "是"), asked("v:3", "a", "b", "是")]
    lines = lines_of(Prompter(letters(True, lower=True), 100), Corpus("x", (*train,), (), (*test,)))
    assert lines == [
        "s: 2 train responses: the tokenizer can express nothing of it (t:2; t:4)",
        "s: 1 train responses: the tokenizer has no token for some characters of it (t:3)",
        "s: 1 test prompts: the tokenizer can express nothing of it (v:2)",
        "s: 1 test responses: the tokenizer changes characters of it, such as capitals or line breaks (v:1)",
        "s: 1 test questions: the tokenizer can express nothing of a choice (v:3)",
    ]
    assert not lines_of(Prompter(byte_tokenizer(), 100), Corpus("x", (*train,), (), (*test,)))


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([free("t:1", "是"), free("t:2", "否")], [free("v", "a")], "t:1: .*'是', nor of any other of the 2 train resp"),
        ([free("t", "a")], [free("v:1", "是", "a")], "v:1: .*'是', nor of any other of the 1 test responses"),
        ([free("t", "a", "是")], [free("v", "a")], "t: .* 1 train prompts; use a backbone that knows"),
        ([Example("t", "是", "", "s", plain_text=True)], [free("v", "a")], "t: .* 1 train responses"),
    ],
)  # fmt: skip
def test_data_of_which_nothing_can_be_expressed_is_refused(train, test, said):
    with pytest.raises(DataError, match=said):
        lines_of(Prompter(letters(True), 100), Corpus("x", (*train,), (), (*test,)))


def test_a_real_tokenizer_that_says_nothing_of_what_it_drops(tiny_stories):
    """TinyStories-656K's has an unknown token that it does not use."""
    prompter = Prompter(tiny_stories, 100)
    with pytest.raises(DataError, match="q: the choices '是' and '否' become the same tokens"):
        lines_of(prompter, Corpus("x", (free("t", "a"),), (), (asked("q", "是", "否"),)))
    train = (free("t:1", "a cat"), free("t:2", "否"), free("t:3", "café"))
    lines = lines_of(prompter, Corpus("x", train, (), (free("v", "a"),)))
    assert [line.partition(":")[2].partition(" (")[2] for line in lines] == ["t:2)", "t:3)"]


def test_texts_that_differ_in_white_space_alone_may_be_the_same_tokens():
    """As lm-eval asks one context for " yes" and "yes"; a text of nothing has no token."""
    assert same_tokens("continuation", [" a", "a", ""], [(1,), (1,), ()]) == ""
    assert same_tokens("continuation", [" a", "b"], [(1,), (1,)]) == (
        "the continuations ' a' and 'b' become the same tokens"
    )
    assert same_tokens("choice", ["是", "b"], [(), (1,)]) == "the choice '是' becomes no token"
