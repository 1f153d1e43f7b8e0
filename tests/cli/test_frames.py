"""How far it is from run.py to the first optimiser step: each frame is a function that a reader has to open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.commands import QUIET, ROOT, run_code

if TYPE_CHECKING:
    from pathlib import Path

MOST = 11
"""Two of them are for what a launcher takes along (HydraTask), and for a verdict: several runs in one job."""

SCRIPT = f"""
import os, runpy, sys, traceback
import torch

def step(*_, **__):
    if any(frame.name == "rehearse" for frame in traceback.extract_stack()):
        return usual(*_, **__)  # one step on two rows, before the run's first
    for frame in traceback.extract_stack():
        if frame.filename.startswith({str(ROOT)!r}) and "site-packages" not in frame.filename:
            print(os.path.relpath(frame.filename, {str(ROOT)!r}), frame.name)
    sys.stdout.flush()
    os._exit(0)

usual, torch.optim.Adam.step = torch.optim.Adam.step, step
sys.argv = [{str(ROOT / "run.py")!r}, *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_few_frames_to_the_first_step(tiny: list[str], tmp_path: Path) -> None:
    words = ["+experiment=elrea_mmlu", *tiny, QUIET, f"store={tmp_path / 'store'}"]
    done = run_code(tmp_path, SCRIPT, *words)
    frames = [line for line in done.out.splitlines() if line.startswith(("run.py ", "elrea/"))]
    assert frames and frames[0] == "run.py <module>" and "loop.py" in frames[-1], done
    assert len(frames) <= MOST, "\n".join(frames)
