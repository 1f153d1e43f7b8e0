"""Texts that strategies write for test prompts, each with its own mix; kept batch by batch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from elrea.data.batches import by_length
from elrea.data.examples import Example
from elrea.data.prompts import Ids
from elrea.errors import StoreError
from elrea.evaluation.scoring import Mixture
from elrea.method.ensemble.decoding import generate, stopped
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.strategy import Strategy, Voting
from elrea.store.files import read_json, write_json
from elrea.store.manifest import CHECKPOINT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TEXTS, WHO = "texts.jsonl", "written.json"

Texts = dict[str, dict[int, list[str]]]
"""By mixture, then by test example: the texts, one or several draws; none where the prompt was too long."""


def written(examples: Sequence[Example], by: str, strategy: Strategy) -> list[int]:
    """The test examples that a strategy writes texts for.

    Args:
        examples: Of the test.
        by: What is judged: likelihood, generation or auto.
        strategy: One that votes has nothing to vote on where an example has no choices, unless it writes.
    """
    if by == "likelihood":
        return []
    every, votes = by == "generation", isinstance(strategy, Voting)
    return [i for i, e in enumerate(examples) if every or e.judge or (votes and not e.choices)]


@dataclass(frozen=True)
class Draws:
    """How many texts a strategy writes for each prompt.

    Attributes:
        samples: Texts of each prompt.
        temperature: 0 takes the likeliest token each time.
        seed: Every prompt and text has draws of its own, which follow from this.
    """

    samples: int = 1
    temperature: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, strategy: Strategy) -> Draws:
        """Greedy, but for a strategy that votes."""
        if isinstance(strategy, Voting):
            return cls(strategy.samples, strategy.temperature, strategy.seed)
        return cls()

    def seeds(self, asked: Sequence[tuple[int, int]]) -> list[int]:
        """A seed for each prompt's number and text's number."""
        return [Random(f"draws/{self.seed}/{i}/{k}").getrandbits(62) for i, k in asked]


def write_texts(
    folder: Path,
    prompts: Mapping[int, Ids],
    joint: JointModel,
    mixtures: Mapping[str, Mixture],
    decoding: Decoding,
    draws: Draws,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pad_id: int,
    batch_size: int,
    too_long: Sequence[int] = (),
    advance: Callable[[int], object] = lambda _n: None,
) -> None:
    """Writes `texts.jsonl`, a line per text; what a stopped process left there, up to its last batch, stays.

    `written.json` then says who wrote, and which prompts nobody could.

    Args:
        folder: Where to.
        prompts: Token ids by the example's number; none are empty.
        joint: All members.
        mixtures: By name; their weights are of all test examples.
        decoding: How long a text may be, and what ends it.
        draws: How many texts, and how tokens are chosen.
        tokenizer: Makes text of tokens.
        pad_id: Fills up short prompts.
        batch_size: Texts that are written together.
        too_long: Numbers of examples whose prompts leave no room for a text.
        advance: Told how many texts are done.
    """
    path, note = folder / TEXTS, folder / CHECKPOINT / "texts.json"
    note.parent.mkdir(exist_ok=True)
    kept = _kept(path, note)
    done = {(name, i, k) for name, i, k, _ in _lines(kept)}
    digest = hashlib.sha256(kept)
    advance(len(done))
    settings = replace(decoding, temperature=draws.temperature)
    with path.open("ab") as file:
        for name, mixture in mixtures.items():
            texts = [(i, k) for i in prompts for k in range(draws.samples)]
            left = [(i, k) for i, k in texts if (name, i, k) not in done]
            for batch in by_length([len(prompts[i]) for i, _ in left], batch_size):
                asked = [left[place] for place in batch]
                numbers = [i for i, _ in asked]
                ids = generate(
                    mixture.model or joint, [prompts[i] for i in numbers], _weights(mixture, joint, numbers),
                    settings, tokenizer, pad_id=pad_id, seeds=draws.seeds(asked),
                )  # fmt: skip
                for (i, k), answer in zip(asked, ids, strict=True):
                    text = str(tokenizer.decode(list(answer), skip_special_tokens=True))
                    line = [name, i, k, stopped(text, decoding.stop)[0]]
                    content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
                    digest.update(content)
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
                write_json(note, {"bytes": file.tell(), "sha256": digest.hexdigest()})
                advance(len(asked))
    write_json(folder / WHO, {"mixtures": list(mixtures), "too_long": list(too_long)})


def read_texts(folder: Path) -> Texts:
    """What `write_texts` wrote."""
    who = read_json(folder / WHO)
    nothing: dict[int, dict[int, str]] = {i: {} for i in who["too_long"]}
    found = {name: dict(nothing) for name in who["mixtures"]}
    for name, i, k, text in _lines((folder / TEXTS).read_bytes()):
        found[name].setdefault(i, {})[k] = text
    return {
        name: {i: [texts[k] for k in sorted(texts)] for i, texts in each.items()}
        for name, each in found.items()
    }


def _weights(mixture: Mixture, joint: JointModel, numbers: Sequence[int]) -> torch.Tensor:
    """Of the members that write [b, members]: a layerwise model's own, or all of the joint model's."""
    own = mixture.weights[list(numbers)]
    if mixture.model is not None:
        return own
    weights = torch.zeros(len(numbers), joint.count)
    weights[:, list(mixture.columns)] = own.float()
    return weights


def _kept(path: Path, note: Path) -> bytes:
    """What of a file that may have been left at any byte is as it was noted; the rest is cut off."""
    if not path.exists():
        return b""
    try:
        noted = read_json(note)
        content = path.read_bytes()[: noted["bytes"]]
        if hashlib.sha256(content).hexdigest() != noted["sha256"]:
            raise ValueError("its checksum does not hold")
    except (StoreError, LookupError, TypeError, ValueError) as error:
        log.warning("%s: %s; its texts are written anew", path, error)
        content = b""
    os.truncate(path, len(content))
    return content


def _lines(content: bytes) -> Iterator[Any]:
    # Not splitlines: a text may hold other signs that end a line.
    return (json.loads(line) for line in content.split(b"\n") if line)
