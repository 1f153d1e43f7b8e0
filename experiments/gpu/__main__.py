"""Measures what needs a GPU: one script of ten minutes, which resumes.

    make gpu                                        # on a GPU; without one the same in small on the CPU
    make gpu ARGS='--small'
    make gpu ARGS='--parts features decode --minutes 5'
    make gpu ARGS='--model models/SmolLM2-135M-Instruct --data <folder of flan_cot/, t0/, gsm8k/>'

Each part writes <into>/<part>.json and <into>/<part>.txt, its output. A second call continues with what is missing. The
exit code is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.gpu.parts import PARTS, run, supervise
from experiments.gpu.record import FAILED
from experiments.gpu.setting import ROOT, Setting
from experiments.gpu.table import lines

LEAST = 20
"""Seconds that a part gets at least: less than its imports would be pointless."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    given = _arguments(words)
    small = given.small or not _gpu()
    into: Path = given.into / ("small" if small else "gpu")
    into.mkdir(parents=True, exist_ok=True)
    data = given.data or _data()
    chosen = [part for part in PARTS if not given.parts or part.name in given.parts]
    if given.part:
        setting = Setting(small, into, given.model, data, given.seconds)
        run(next(part for part in PARTS if part.name == given.part), setting)
        return 0
    if small and not given.small:
        print(
            "torch finds no GPU here: everything runs in small on the CPU, and says nothing of a GPU"
        )
    end = time.monotonic() + 60 * given.minutes
    found = []
    for part in chosen:
        left = end - time.monotonic()
        seconds = max(LEAST, part.share * left)
        setting = Setting(small, into, given.model, data, seconds)
        print(f"{part.title}: at most {seconds:.0f} s", flush=True)
        command = [
            sys.executable,
            "-m",
            "experiments.gpu",
            *words,
            "--part",
            part.name,
            "--seconds",
            str(seconds),
        ]
        os.chdir(ROOT)
        found.append((part, supervise(part, setting, command, seconds)))
    print("\n".join(lines(found)))
    print(f"The figures are in {into}")
    failed = [(part, record) for part, record in found if record.content["status"] == FAILED]
    for part, record in failed:
        print(
            f"error: {part.name}: {record.content['note']}; see {into / part.name}.txt",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--small", action="store_true", help="small sizes on the CPU")
    parser.add_argument(
        "--minutes", type=float, default=10, help="time for all parts (default: 10)"
    )
    parser.add_argument("--parts", nargs="+", choices=names, help="only these")
    parser.add_argument(
        "--into", type=lambda text: Path(text).resolve(), default=ROOT / "outputs" / "gpu-figures",
        help="folder of the results (default: outputs/gpu-figures)",
    )  # fmt: skip
    parser.add_argument(
        "--model", type=lambda text: Path(text).resolve(), help="the backbone's folder"
    )
    parser.add_argument(
        "--data",
        type=lambda text: Path(text).resolve(),
        help="data of the study (default: ELREA_DATA, ../shared/data)",
    )
    parser.add_argument("--part", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=600, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _data() -> Path | None:
    places = [
        os.environ.get("ELREA_DATA"),
        ROOT / "shared" / "data",
        ROOT.parent / "shared" / "data",
    ]
    return next((Path(place) for place in places if place and Path(place).is_dir()), None)


if __name__ == "__main__":
    sys.exit(main())
