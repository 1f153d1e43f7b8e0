"""Fixtures of the tests of elrea/data: tokenizers, real and small published data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from elrea.data.examples import Example
from tests.data import published as published_files
from tests.data.chat_templates import With
from tests.real_files import real_data, real_model

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (  # no system role, strips, begins with BOS
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Write = Callable[[str, Iterable[Any]], Path]


def _byte_level(use_regex: bool, text: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; without the regex it merges across words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(text, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(scope="session")
def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without chat template, in which " A" is one token."""
    return _byte_level(True, ["What is it?\nAnswer: A", "Why?\nAnswer: B", "Answer: C D"] * 20)


@pytest.fixture(scope="session")
def merging() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for ": A": the ids of prompt and response together do not begin with the prompt's."""
    return _byte_level(False, [": A", ": B", ": A", ": B"] * 20)


@pytest.fixture
def chatml(byte_level: PreTrainedTokenizerFast) -> PreTrainedTokenizerBase:
    """The byte-level tokenizer with a chat template in the ChatML form."""
    return _with_template(byte_level, CHATML)


@pytest.fixture
def gemma(byte_level: PreTrainedTokenizerFast) -> PreTrainedTokenizerBase:
    """The byte-level tokenizer with a template that refuses system turns and repeated roles, like Gemma's."""
    return _with_template(byte_level, GEMMA)


def _with_template(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerBase:
    twin = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    twin.chat_template = template
    return twin


@pytest.fixture(scope="session")
def tiny_stories() -> PreTrainedTokenizerBase:
    """The real tokenizer of TinyStories-656K."""
    return AutoTokenizer.from_pretrained(real_model("TinyStories-656K"), local_files_only=True)


@pytest.fixture(scope="session")
def real_mmlu() -> Path:
    """The folder of the real MMLU CSV files."""
    return real_data("mmlu")


@pytest.fixture(scope="session")
def real_t0() -> Path:
    """The folder of the real prompt/completion files."""
    return real_data("t0")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes rows to a file (objects as JSON, texts unchanged) and returns its path."""

    def write(name: str, rows: Iterable[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def question() -> Example:
    """A multiple choice question with a header and two shots."""
    return Example(
        id="q",
        instruction="What is it?\nA. x\nB. y\nAnswer:",
        response="B",
        source="mmlu",
        choices=("A", "B"),
        shots=(("Why?\nAnswer:", "A"), ("Who?\nAnswer:", "B")),
        header="About things.",
    )


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """A function that finds a folder of real data and skips the test if it does not exist."""
    return real_data


@pytest.fixture
def published(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a small data set in its published layout, by the name of its source."""
    return lambda name: published_files.save(name, tmp_path / "published" / name)


@pytest.fixture
def templated(byte_level: PreTrainedTokenizerFast) -> With:
    """The byte-level tokenizer, which has tokens for the markers of a turn, with a chat template."""

    def make(template: str) -> PreTrainedTokenizerBase:
        twin = PreTrainedTokenizerFast(
            tokenizer_object=byte_level.backend_tokenizer,
            bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        )  # fmt: skip
        twin.chat_template = template
        return twin

    return make
