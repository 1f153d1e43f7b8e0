"""`make run-real`: SmolLM2-135M-Instruct on real text, from nothing: model, text, plan with expected times, and run.

    python -m experiments.real_model.run seed=1 evaluation.strategies=[base,elrea]

The words are overrides of run.py, added to those of conf/experiment/real_model.yaml. A backbone or data that they
choose is not made here. The same command again finds every finished stage in the store.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import ConfigError
from experiments.real_model import smollm2
from experiments.real_model.text import text

SCRIPT = Path(__file__).resolve().parents[2] / "run.py"
FOLDER = Path("data/real_model")
"""Where the text is written, one folder for each origin."""
CPUINFO = Path("/proc/cpuinfo")
FASTER = {"avx512_bf16", "amx_bf16"}
"""Flags of CPUs that multiply bfloat16 numbers faster than float32 ones."""
OPTIONS = "data.options=text"
"""How questions with choices are asked: with letters, this model is at chance before and after training."""


def main(argv: Sequence[str] | None = None) -> None:
    """Makes what is missing, prints the plan, and becomes the run.

    Raises:
        ElreaError: The model cannot be fetched, or ELREA_DATA holds nothing that can be read.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    words = ["+experiment=real_model"]
    asks = {"-h", "--help", "--cfg", "-c", "--info"} & set(typed)
    if not asks:
        # The text first: it is what may be wrong, and takes seconds.
        data = [] if chosen(typed, "data", "data.train", "data.test") else _text(typed)
        words += [] if chosen(typed, "backbone", "backbone.name") else _model(typed)
        words += data
    command = [sys.executable, str(SCRIPT), *words, *typed]
    if not asks and not chosen(typed, "plan", "until"):
        print("The plan first, with the expected times:", flush=True)
        planned = subprocess.run([*command, "plan=true"], check=False)
        if planned.returncode:
            sys.exit(planned.returncode)
    print(f"Running {shlex.join(['python', 'run.py', *words, *typed])}", flush=True)
    os.execv(sys.executable, command)


def chosen(words: Sequence[str], *keys: str) -> bool:
    """Whether overrides set one of some keys: data=gsm8k, +data.train=mine.jsonl."""
    names = [word.lstrip("+~").partition("=")[0] for word in words if "=" in word]
    return any(name in keys for name in names)


def _model(words: Sequence[str]) -> list[str]:
    """Makes the model, and chooses the data type that is fastest on this CPU; a GPU's is the default."""
    if not smollm2.is_made():
        smollm2.make()
    told = [f"backbone.name={smollm2.FOLDER}"]
    if chosen(words, "backbone.dtype", "backbone.quantise") or not CPUINFO.is_file():
        return told
    import torch

    fast = FASTER & set(CPUINFO.read_text().split()) and not torch.cuda.is_available()
    return [*told, "backbone.dtype=mixed"] if fast else told


def _text(words: Sequence[str]) -> list[str]:
    """Writes the text; it is made each time, from data that may have changed."""
    made = text(_seed(words))
    published = bool(os.environ.get("ELREA_DATA"))
    paths = made.write(FOLDER / ("published" if published else "installed"))
    print("\n".join(made.lines), flush=True)
    asked = [] if chosen(words, "data.options") else [OPTIONS]
    return ["data=jsonl", *asked, *(f"data.{split}={path}" for split, path in paths.items())]


def _seed(words: Sequence[str]) -> int:
    """The seed of the draws: `data.seed`, as in every other data set; the run's own seed changes no question."""
    given = [word.partition("=")[2] for word in words if word.startswith("data.seed=")]
    try:
        return int(given[-1]) if given else 0
    except ValueError:
        raise ConfigError(f"data.seed={given[-1]} must be a whole number") from None


if __name__ == "__main__":
    with one_line_errors():
        main()
