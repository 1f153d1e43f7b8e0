"""The beginning of a plain prompt: as in the tokenizer's own encoding and lm-eval's, or as backbone.add_bos says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from elrea.data.examples import Example
from elrea.data.prompts import Prompter
from elrea.data.wording import Wording
from elrea.data.wording_key import wording_key
from elrea.models.backbone import Pretrained, Tiny
from tests.small_models import byte_tokenizer

QUESTION = Example("x", "Why is it so?", "So.", "s")


def beginning(template: str | None, bos: str | None = "<s>") -> PreTrainedTokenizerFast:
    """A tokenizer whose own encoding follows a template; None: it adds nothing."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = (
        processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 1), ("<pad>", 2)]
        )
        if template
        else None
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token=bos, eos_token="</s>"
    )


KINDS = {
    "Llama": ("<s> $A", "<s>"),
    "GPT-2": (None, "<s>"),
    "Qwen": (None, None),
    "ends with EOS": ("<s> $A </s>", "<s>"),
    "two tokens": ("<pad> <s> $A", None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_begins_as_the_tokenizers_own_encoding(kind: str) -> None:
    template, bos = KINDS[kind]
    tokenizer = beginning(template, bos)
    own = tokenizer(QUESTION.instruction)["input_ids"]
    if own[-1] == tokenizer.eos_token_id:
        own = own[:-1]
    prompter = Prompter(tokenizer, 100)
    assert list(prompter.encode(QUESTION).prompt) == own
    assert list(prompter.routing([QUESTION])[0].prompt) == own
    bare = tokenizer(QUESTION.instruction, add_special_tokens=False)["input_ids"]
    off, on = (Prompter(tokenizer, 100, Wording(add_bos=add)) for add in (False, True))
    assert list(off.encode(QUESTION).prompt) == bare
    assert list(on.encode(QUESTION).prompt) == ([0, *bare] if bos else bare)


def test_it_is_what_lm_eval_does() -> None:
    models = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed")
    for template, bos in KINDS.values():
        tokenizer = beginning(template, bos)
        own = models.HFLM.__new__(models.HFLM)
        own.tokenizer, own.add_bos_token, own.custom_prefix_token_id = tokenizer, None, 1
        own.backend = "causal"
        encoded = own.tok_encode(QUESTION.instruction)
        prompt = list(Prompter(tokenizer, 100).encode(QUESTION).prompt)
        assert encoded in (prompt, [*prompt, 1])  # EOS behind a prompt is of no use
        for add in (True, False):
            own.add_bos_token = add
            prompter = Prompter(tokenizer, 100, Wording(add_bos=add))
            if template == "<s> $A" or not add:
                assert own.tok_encode(QUESTION.instruction) == list(
                    prompter.encode(QUESTION).prompt
                )


def test_keys_change_only_where_prompts_do(tiny_stories: PreTrainedTokenizerBase) -> None:
    def key(tokenizer: PreTrainedTokenizerBase, wording: Wording) -> object:
        return wording_key(Prompter(tokenizer, 100, wording), [QUESTION])

    assert key(tiny_stories, Pretrained().wording()) == {}
    exam = AutoTokenizer.from_pretrained(Tiny().name)
    assert key(exam, Tiny().wording()) == {}
    assert exam("a")["input_ids"][0] != exam.bos_token_id  # it says so itself
    assert key(exam, Wording()) == {"start": []}
    changed = {"GPT-2": {"start": []}, "two tokens": {"start": [2, 0]}}
    for kind in KINDS:
        assert key(beginning(*KINDS[kind]), Wording()) == changed.get(kind, {})
    for kind in KINDS:
        assert key(beginning(*KINDS[kind]), Wording(add_bos=True)) == {}
    assert key(beginning(*KINDS["Llama"]), Wording(add_bos=False)) == {"start": []}


def test_the_settings_of_a_backbone_are_the_wordings(tmp_path: Path) -> None:
    given = Pretrained(
        str(tmp_path), use_chat_template=False, add_bos=False, template_date="2020-01-02",
        chat_template_kwargs={"a": 1},
    )  # fmt: skip
    assert given.wording() == Wording(False, False, "2020-01-02", {"a": 1})
    assert Tiny().wording() == Wording(add_bos=True)
