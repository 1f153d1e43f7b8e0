"""The distilled router's two stages: training it, and routing prompts by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor

from elrea.data.prompts import Encoded
from elrea.features.extract import extract
from elrea.features.featurefile import NAME, open_features
from elrea.features.reader import Advance
from elrea.features.stream import stream
from elrea.manifest import CHECKPOINT
from elrea.routing.distilled import Distilled
from elrea.routing.student import Lesson, fit, load, save

if TYPE_CHECKING:
    from peft import PeftModel

COSINES = "cosines.safetensors"

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
Taught = tuple[Sequence[Encoded], Tensor]
"""Prompts, and their cosines by gradient [n, C]."""


def distil(
    folder: Path,
    model: PeftModel,
    adapter: Path,
    train: Taught,
    dev: Taught | None,
    settings: Distilled,
    *,
    seed: int,
    pad_id: int,
    progress: Progress,
) -> None:
    """Trains the router: writes `router.safetensors` and `router.json`.

    The training prompts' states are a memory-mapped file in `checkpoint/` while it works: a killed run finds them
    again, and the store drops them afterwards.

    Args:
        folder: Where to.
        model: A PEFT model of the base adapter's shape; its adapter is replaced by the finished one.
        adapter: PEFT folder of the base adapter.
        train: What is learned.
        dev: What the training is stopped by; None holds training prompts out.
        settings: Of the router.
        seed: Of the student.
        pad_id: The id that fills up short prompts.
        progress: Makes a progress bar.
    """
    states, (prompts, cosines) = settings.states, train
    place = folder / CHECKPOINT / "states"
    place.mkdir(parents=True, exist_ok=True)
    with progress("hidden states, train prompts", len(prompts)) as advance:
        reader = states.reader(model, [adapter], pad_id)
        stream(place, prompts, states, reader, advance=advance)
    judged = None
    if dev is not None:
        rows = extract(model, [adapter], dev[0], states, pad_id=pad_id)
        judged = Lesson(rows.numpy(), dev[1])
    lesson = Lesson(open_features(place / NAME, len(prompts)), cosines)
    with progress("train router", len(prompts) * settings.epochs) as advance:
        student, figures = fit(lesson, judged, settings, seed, advance)
    save(folder, student, settings, {**figures, "passes": round(reader.cost, 6)})


def predict(
    folder: Path,
    model: PeftModel,
    adapter: Path,
    prompts: Sequence[Encoded],
    settings: Distilled,
    *,
    pad_id: int,
    advance: Advance = lambda _n: None,
) -> Tensor:
    """cos_c of prompts by one forward pass of the base adapter each [n, C].

    Args:
        folder: Of the trained router.
        model, adapter, settings, pad_id: As above.
        prompts: Without responses.
        advance: Told how many prompts are done.
    """
    states = extract(model, [adapter], prompts, settings.states, pad_id=pad_id, advance=advance)
    return load(folder).predict(states.numpy())


def write_cosines(folder: Path, cosines: Tensor) -> None:
    """Keeps predicted cosines [n, C]."""
    save_file({"cosines": cosines}, folder / COSINES)


def read_cosines(folder: Path) -> Tensor:
    """The cosines [n, C] that `write_cosines` kept."""
    return load_file(folder / COSINES)["cosines"]
