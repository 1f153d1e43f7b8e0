"""Generates texts for test prompts with each strategy's mixture, and saves them batch by batch to resume from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elrea.data.batches import by_length
from elrea.errors import StoreError
from elrea.method.ensemble.decoding import generate, stopped
from elrea.store.files import read_json, sha256_of, write_json
from elrea.store.manifest import CHECKPOINT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elrea.data.prompts import Ids
    from elrea.evaluation.draws import Draws
    from elrea.evaluation.scoring import Mixture
    from elrea.method.ensemble.decoding_settings import Decoding
    from elrea.method.ensemble.joint import JointModel

log = logging.getLogger(__name__)

TEXTS, CONTENTS = "texts.jsonl", "written.json"
"""The texts, and which mixtures and examples they belong to."""

Texts = dict[str, dict[int, list[str]]]
"""By mixture, then by index of the test example: one text per draw, or none if the prompt was too long."""


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
    """Writes `texts.jsonl`, one line per text, then `written.json` with the mixtures and the prompts that are too long.

    After a kill it resumes after the last finished batch.

    Args:
        folder: The folder to write to.
        prompts: Token ids by the example's index; none are empty.
        joint: The model with all members.
        mixtures: By name; their weights have one row per test example.
        decoding: The length limit and the stop texts.
        draws: How many texts per prompt, and how they are sampled.
        tokenizer: Decodes the tokens.
        pad_id: Padding for short prompts.
        batch_size: Texts per batch.
        too_long: Indices of examples whose prompts leave no room for a text.
        advance: Called with the number of texts that were finished since the last call.
    """
    path, progress = folder / TEXTS, folder / CHECKPOINT / "texts.json"
    progress.parent.mkdir(exist_ok=True)
    finished = _resume(path, progress)
    done = {(name, i, k) for name, i, k, _ in _lines(finished)}
    digest = sha256_of(finished)
    advance(len(done))
    settings = replace(decoding, temperature=draws.temperature)
    with path.open("ab") as file:
        for name, mixture in mixtures.items():
            texts = [(i, k) for i in prompts for k in range(draws.samples)]
            missing = [(i, k) for i, k in texts if (name, i, k) not in done]
            for batch in by_length([len(prompts[i]) for i, _ in missing], batch_size):
                wanted = [missing[position] for position in batch]
                indices = [i for i, _ in wanted]
                ids = generate(
                    mixture.model or joint, [prompts[i] for i in indices], _weights(mixture, joint, indices),
                    settings, tokenizer, pad_id=pad_id, seeds=draws.seeds(wanted),
                )  # fmt: skip
                for (i, k), answer in zip(wanted, ids, strict=True):
                    text = str(tokenizer.decode(list(answer), skip_special_tokens=True))
                    line = [name, i, k, stopped(text, decoding.stop)[0]]
                    content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
                    digest.update(content)
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
                write_json(progress, {"bytes": file.tell(), "sha256": digest.hexdigest()})
                advance(len(wanted))
    write_json(folder / CONTENTS, {"mixtures": list(mixtures), "too_long": list(too_long)})


def read_texts(folder: Path) -> Texts:
    """Reads the texts that `write_texts` wrote."""
    contents = read_json(folder / CONTENTS)
    empty: dict[int, dict[int, str]] = {i: {} for i in contents["too_long"]}
    by_mixture = {name: dict(empty) for name in contents["mixtures"]}
    for name, i, k, text in _lines((folder / TEXTS).read_bytes()):
        by_mixture[name].setdefault(i, {})[k] = text
    return {
        name: {i: [texts[k] for k in sorted(texts)] for i, texts in by_example.items()}
        for name, by_example in by_mixture.items()
    }


def _weights(mixture: Mixture, joint: JointModel, indices: Sequence[int]) -> torch.Tensor:
    """The members' weights [b, members] for the layerwise model if there is one, or else for the joint model."""
    rows = mixture.weights[list(indices)]
    if mixture.model is not None:
        return rows
    weights = torch.zeros(len(indices), joint.count)
    weights[:, list(mixture.columns)] = rows.float()
    return weights


def _resume(path: Path, progress: Path) -> bytes:
    """Cuts a file that a killed process left at its last finished batch, and returns what remains."""
    if not path.exists():
        return b""
    try:
        noted = read_json(progress)
        content = path.read_bytes()[: noted["bytes"]]
        if sha256_of(content).hexdigest() != noted["sha256"]:
            raise ValueError("checksum mismatch")
    except (StoreError, LookupError, TypeError, ValueError) as error:
        log.warning("%s: %s; all its texts are generated again", path, error)
        content = b""
    os.truncate(path, len(content))
    return content


def _lines(content: bytes) -> Iterator[Any]:
    # Not splitlines: a text may contain other characters that it takes for line ends.
    return (json.loads(line) for line in content.split(b"\n") if line)
