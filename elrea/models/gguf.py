"""Reads a GGUF file, the format of llama.cpp: config, tokenizer and dequantised weights, by transformers.

python -m elrea.models.gguf model.gguf models/name      writes it as a folder of safetensors, once and for all
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError, ElreaError
from elrea.store.files import publish, sha256
from elrea.store.lock import Lease

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

SUFFIX = ".gguf"
MAGIC = b"GGUF"
FINER = {"F64", "F32", "F16", "Q8_0", "Q8_1", "Q8_K"}
"""Types of weights that bfloat16 rounds noticeably."""


def is_gguf(name: str) -> bool:
    """Whether a backbone's name is that of a GGUF file."""
    return name.lower().endswith(SUFFIX)


def check(path: Path) -> None:
    """Refuses what is no whole GGUF file of an architecture that transformers dequantises, before it is loaded.

    Raises:
        BackboneError: The file is missing, cut, of an unknown architecture, or the package gguf is not installed.
    """
    if not path.is_file():
        raise BackboneError(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise BackboneError(f"{path}: not a GGUF file, whatever its name says")
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise BackboneError(
            "a GGUF file needs the package gguf: pip install 'elrea[gguf]'"
        ) from error
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    try:
        reader = GGUFReader(path)
        kind = str(reader.fields["general.architecture"].contents())
        ends = [int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors]
    except Exception as error:  # the reader indexes a memory map: any class for a cut file
        raise BackboneError(
            f"{path}: cut or damaged ({type(error).__name__}); download it again"
        ) from error
    if max(ends, default=0) > path.stat().st_size:
        raise BackboneError(f"{path}: cut: it ends before its last tensor; download it again")
    if kind not in GGUF_SUPPORTED_ARCHITECTURES:
        known = ", ".join(sorted(GGUF_SUPPORTED_ARCHITECTURES))
        raise BackboneError(f"{path}: transformers cannot read GGUF of {kind!r}; it reads {known}")


def dense() -> dict[str, Any]:
    """Arguments of `from_pretrained` that make plain weights of a GGUF file's; older transformers always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def convert(path: Path, folder: Path, card: str = "") -> None:
    """Writes a GGUF file's model as a folder: bfloat16 safetensors, config, tokenizer and README.md.

    bfloat16 has 8 significant bits. For weights of 6 bits or fewer its rounding is far below the error of their
    quantisation; matrices with more (Q8_0, F16, F32) lose bits, and the log says so.

    Args:
        path: The file.
        folder: The folder to make; an existing one is replaced when the new one is whole.
        card: The text of README.md; empty: none.

    Raises:
        BackboneError: The file cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    check(path)
    logging.disable_progress_bar()
    place: dict[str, Any] = {"gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **place)
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(path.parent), dtype=torch.float32, **dense(), **place
        )
    except Exception as error:  # transformers raises any class for a broken file
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BackboneError(f"{path}: cannot be read: {line}") from error
    # The loaded model remembers that it was quantised, and would refuse to be saved.
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    plain: Any = type(loaded)(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    finer = _finer(path)
    if finer:
        log.warning("%s: its %s matrices are rounded to bfloat16 (8 bits)", path, ", ".join(finer))
    plain.to(torch.bfloat16)
    plain.generation_config = loaded.generation_config

    def write(place: Path) -> None:
        plain.save_pretrained(place)
        tokenizer.save_pretrained(place)
        if card:
            (place / "README.md").write_text(card, encoding="utf-8")

    publish(folder, write)


def _finer(path: Path) -> list[str]:
    """Types of the file's matrices that bfloat16 rounds noticeably, sorted."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    kinds = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}
    return sorted(kinds & FINER)


@lru_cache(maxsize=8)
def converted(path: Path) -> Path:
    """The folder of a GGUF file in the Hugging Face cache, named by the file's content; made at the first call.

    Raises:
        BackboneError: The file cannot be read.
    """
    from huggingface_hub.constants import HF_HOME

    check(path)
    folder = Path(HF_HOME) / "elrea-gguf" / sha256(path)[:16] / path.stem
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Lease(folder.with_name("lease")):
        if not (folder / "config.json").is_file():
            log.info("Dequantising %s, once", path)
            convert(path, folder)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Converts a file."""
    parser = argparse.ArgumentParser(prog="python -m elrea.models.gguf", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(argv)
    try:
        convert(given.file, given.folder)
    except ElreaError as error:
        sys.exit(f"error: {error}")
    print(f"{given.folder} is written; use it as backbone=pretrained backbone.name={given.folder}")


if __name__ == "__main__":
    main()
